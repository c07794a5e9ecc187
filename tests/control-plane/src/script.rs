//! What a test lets the control plane do other than serve.

use bytes::Bytes;
use prost::Message as _;
use tonic::{Code, Status};

use crate::resource::Resource;
use crate::wire::discovery::{self, Response};

/// What becomes of a new TCP connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Door {
    /// It is served.
    #[default]
    Open,
    /// It is accepted, and nothing is ever said on it.
    Silent,
    /// It is closed at once.
    Slammed,
}

/// What becomes of a new stream.
#[derive(Clone, Debug, Default)]
pub enum Admission {
    /// It is served.
    #[default]
    Serve,
    /// It is refused: the status comes in place of a stream, as from istiod.
    Refuse(Code, String),
    /// It is accepted, and no request is ever answered.
    Mute,
}

/// How all connections end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// GOAWAY without an error, then the socket is closed: as an old connection ends, and a server that is stopped.
    Graceful,
    /// The socket is closed, in the middle of whatever was said.
    Abrupt,
}

/// What a stream is told to do.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// Sends these bytes as a response, recorded under this type and nonce.
    Send { type_url: String, nonce: String, message: Bytes },
    /// Ends with this status.
    End(Status),
    /// Answers nothing any more.
    Mute,
}

/// A response that a test writes itself.
#[derive(Clone, Debug, Default)]
pub struct Push(Response);

impl Push {
    /// One of a type, with a nonce.
    pub fn new(type_url: &str, nonce: &str) -> Self {
        Self(Response {
            system_version_info: "scripted".to_owned(),
            type_url: type_url.to_owned(),
            nonce: nonce.to_owned(),
            ..Response::default()
        })
    }

    /// With one more resource.
    pub fn resource(mut self, resource: impl Into<Resource>) -> Self {
        self.0.resources.push(resource.into().plain());
        self
    }

    /// With one more resource as the wire has it.
    pub fn wire(mut self, resource: &discovery::Resource) -> Self {
        self.0.resources.push(resource.encode_to_vec().into());
        self
    }

    /// With bytes in place of a resource.
    pub fn bytes(mut self, bytes: impl Into<Bytes>) -> Self {
        self.0.resources.push(bytes.into());
        self
    }

    /// With one more name that is gone.
    pub fn removed(mut self, name: &str) -> Self {
        self.0.removed_resources.push(name.to_owned());
        self
    }

    pub(crate) fn command(self) -> Command {
        let message = self.0.encode_to_vec().into();
        Command::Send { type_url: self.0.type_url, nonce: self.0.nonce, message }
    }
}
