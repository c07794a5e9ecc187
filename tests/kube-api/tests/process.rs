//! The stand-in as a process: it obeys on its input, answers a client that is let in, and ends with its input.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

#[test]
fn it_obeys_line_by_line_and_ends_with_its_input() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_kube-api"));
    let mut child =
        command.arg("--dir").arg(dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("stdin")?;
    let mut output = BufReader::new(child.stdout.take().context("stdout")?);
    let mut answer = move || -> Result<String> {
        let mut line = String::new();
        output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    };
    ensure!(answer()?.starts_with("listening 127.0.0.1:"));
    let mut kubeconfig = String::new();
    std::fs::File::open(dir.path().join("kubeconfig"))?.read_to_string(&mut kubeconfig)?;
    ensure!(kubeconfig.contains("https://127.0.0.1:"), "{kubeconfig}");
    let objects = dir.path().join("objects.json");
    std::fs::write(&objects, json!([{"kind": "Node", "metadata": {"name": "node1"}}]).to_string())?;
    let mut ask = |line: &str| -> Result<String> {
        writeln!(input, "{line}")?;
        answer()
    };
    ensure!(ask(&format!("apply {}", objects.display()))? == "ok");
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    ensure!(ask(&format!("patch nodes - node1 {labels}"))? == "ok");
    let node: Value = serde_json::from_str(&ask("get nodes - node1")?)?;
    ensure!(node.pointer("/metadata/labels/a") == Some(&json!("b")), "{node}");
    ensure!(ask("fail paint 500 1")?.starts_with("error: "), "there is no such verb");
    ensure!(ask("pods /proc/version")? == "ok" && ask("delete nodes - node1")? == "ok");
    ensure!(ask("get nodes - node1")? == "null");
    drop(input);
    ensure!(child.wait()?.success());
    Ok(())
}
