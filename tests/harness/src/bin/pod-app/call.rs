//! Whom a server asks before it answers: another server, on a connection of its own, for the path that it was asked for itself.
//!
//! A call that fails is in the answer in words, and makes it a 502: nothing of it is hidden.

use std::net::SocketAddr;
use std::str::FromStr;

use anyhow::{Context as _, Result, ensure};
use harness::{Http, client};
use serde_json::Value;

/// One of those.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// What its answer is called in ours.
    name: String,
    to: SocketAddr,
}

impl FromStr for Call {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, to) = text.split_once('=').context("a call is written name=address:port")?;
        Ok(Self { name: name.to_owned(), to: to.parse().with_context(|| format!("the address {to:?}"))? })
    }
}

impl Call {
    fn ask(&self, path: &str) -> Result<Value> {
        let reply = Http::new(client::connect(self.to, client::LIMIT)?)?.get(path)?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.body);
        Ok(serde_json::from_str(&reply.body)?)
    }
}

/// Asks all, one after the other, and puts what they say into an answer; false if one of them has failed.
pub(crate) fn ask_all(calls: &[Call], path: &str, answer: &mut Value) -> bool {
    let mut all = true;
    for call in calls {
        let said = call.ask(path).unwrap_or_else(|error| {
            all = false;
            format!("{}: {error:#}", call.to).into()
        });
        if let Some(answer) = answer.as_object_mut() {
            answer.insert(call.name.clone(), said);
        }
    }
    all
}
