//! Errors as the container runtime reads them: codes and shape of the CNI specification 1.1, section "Error".
//!
//! `msg` says what to do, `details` what happened; the kubelet shows both as `plugin type="culvert-cni" failed (add):
//! msg; details`. Codes below 100 are the specification's.

use serde::Serialize;
use thiserror::Error;

/// Codes of the specification, and our own from 100 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// 1: a CNI version that the plugin does not speak.
    IncompatibleVersion,
    /// 4: `CNI_*` variables missing or malformed.
    InvalidEnvironment,
    /// 5: stdin could not be read.
    Io,
    /// 6: stdin is not JSON.
    Decoding,
    /// 7: the configuration cannot be used.
    InvalidConfig,
    /// 11: nothing is wrong with the pod; the runtime should call again later.
    TryAgainLater,
    /// 100: the pod's network namespace is not there.
    NetnsGone,
    /// 103: the agent answered with something else than a response. 101 and 102 are the agent's own.
    AgentGarbled,
    /// A code that the agent chose.
    Agent(u32),
}

impl Code {
    /// Its number on the wire.
    pub fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Decoding => 6,
            Self::InvalidConfig => 7,
            Self::TryAgainLater => 11,
            Self::NetnsGone => 100,
            Self::AgentGarbled => 103,
            Self::Agent(number) => number,
        }
    }
}

/// An error that ends the call.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{msg} ({details})")]
pub struct SpecError {
    /// Its kind.
    pub code: Code,
    /// What to do.
    pub msg: String,
    /// What happened.
    pub details: String,
}

impl SpecError {
    /// An error of this kind.
    pub fn new(code: Code, msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: details.into() }
    }

    /// The JSON that goes to stdout.
    pub fn to_json(&self, cni_version: &str) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct OnWire<'a> {
            cni_version: &'a str,
            code: u32,
            msg: &'a str,
            details: &'a str,
        }
        let shape = OnWire { cni_version, code: self.code.number(), msg: &self.msg, details: &self.details };
        // A struct of strings and a number always becomes JSON; an empty answer would still come with exit status 1.
        serde_json::to_string(&shape).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_the_specifications() {
        let error = SpecError::new(Code::TryAgainLater, "start the agent", "connect: \"no such file\"");
        assert_eq!(
            error.to_json("1.0.0"),
            r#"{"cniVersion":"1.0.0","code":11,"msg":"start the agent","details":"connect: \"no such file\""}"#
        );
    }
}
