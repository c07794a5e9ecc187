//! A command in a pod, as API server and kubelet run it together: a websocket of `v5.channel.k8s.io`, in which the first byte of a message
//! names its channel: 1 and 2 have what the command prints, 3 has an object of kind `Status` at its end.
//!
//! What a pod's commands are only the test knows: it hands over who runs them. There is no input and no terminal.

use std::io;
use std::process::Output;
use std::sync::Arc;

use axum::body::Body;
use futures_util::SinkExt as _;
use http::{HeaderMap, Response};
use hyper::upgrade::OnUpgrade;
use serde_json::{Value, json};

use crate::error::Refusal;
use crate::websocket::{self, Socket, message};

/// Runs a command of a pod to its end: the pod's namespace, its name, and the words.
pub(crate) type Execute = dyn Fn(&str, &str, &[String]) -> io::Result<Output> + Send + Sync;

const PROTOCOL: &str = "v5.channel.k8s.io";
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;

/// A command that is to be run.
pub(crate) struct Wanted {
    pub(crate) execute: Arc<Execute>,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) words: Vec<String>,
}

/// Switches to websockets, runs the command, and tells what came of it.
pub(crate) fn start(
    wanted: Wanted,
    headers: &HeaderMap,
    upgrade: Option<OnUpgrade>,
) -> Result<Response<Body>, Refusal> {
    websocket::switch(PROTOCOL, headers, upgrade, |socket| tell(socket, wanted))
}

async fn tell(mut socket: Socket, wanted: Wanted) -> anyhow::Result<()> {
    let Wanted { execute, namespace, pod, words } = wanted;
    let ended = tokio::task::spawn_blocking(move || execute(&namespace, &pod, &words)).await?;
    let status = match ended {
        Ok(ended) => {
            socket.send(message(STDOUT, &ended.stdout)).await?;
            socket.send(message(STDERR, &ended.stderr)).await?;
            status(ended.status.code())
        }
        Err(error) => Refusal::new(500, "InternalError", error.to_string()).object(),
    };
    socket.send(message(STATUS, status.to_string().as_bytes())).await?;
    websocket::end(socket).await
}

/// How a command ended, as the API says it; one that a signal has killed has no code.
fn status(code: Option<i32>) -> Value {
    if code == Some(0) {
        return json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    }
    let code = code.map_or_else(|| "137".to_owned(), |code| code.to_string());
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with exit code {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code}]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_code_0_is_a_success() {
        assert_eq!(status(Some(0))["status"], "Success");
        assert_eq!(status(Some(3))["details"]["causes"][0]["message"], "3");
        assert_eq!(status(None)["status"], "Failure");
    }
}
