//! The real binary and its configuration: what it shows, and that nothing begins while something is wrong with it.

use std::path::PathBuf;
use std::process::{Command, Output};

const TOKEN: &str = "eyJhbGciOiJub25lIn0.s3cret.x";

/// The binary, with nothing in its environment.
fn culvert(words: &[&str], variables: &[(&str, &str)]) -> std::io::Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_culvert"));
    command.args(words).env_clear().envs(variables.iter().copied()).output()
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// A path of this test alone at which nothing is.
fn nowhere(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("culvert-configuration-{}-{name}", std::process::id()));
    assert!(!path.exists());
    path
}

#[test]
fn config_shows_what_is_in_force_and_where_it_comes_from() {
    let ended = culvert(
        &["config", "--mesh", "/etc/mesh.yaml", "-o", "json"],
        &[("AUTH_TOKEN", TOKEN), ("DRAIN", "1"), ("CULVERT_DRAIN_LIMIT", "5m")],
    )
    .unwrap();
    assert!(ended.status.success(), "{}", text(&ended.stderr));
    let shown: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(shown["drainLimit"]["value"], "5m");
    assert_eq!(shown["drainLimit"]["source"], "variable CULVERT_DRAIN_LIMIT");
    assert_eq!(shown["mesh"]["source"], "flag --mesh");
    assert!(!text(&ended.stdout).contains("s3cret"));
}

#[test]
fn what_config_writes_config_reads() {
    let first =
        culvert(&["config", "--mesh", "/etc/mesh.yaml", "--network", "1.10", "-o", "yaml"], &[]).unwrap();
    assert!(first.status.success(), "{}", text(&first.stderr));
    let path = nowhere("round.yaml");
    std::fs::write(&path, &first.stdout).unwrap();
    let again = culvert(&["config", "--config", path.to_str().unwrap(), "--output", "yaml"], &[]).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(again.status.success(), "{}", text(&again.stderr));
    let values = |output: &Output| -> Vec<String> {
        text(&output.stdout).lines().map(|line| line.split("  # ").next().unwrap().to_owned()).collect()
    };
    assert_eq!(values(&again), values(&first));
    assert!(values(&again).contains(&"network: 1.10".to_owned()));
}

#[test]
fn config_tells_everything_that_is_wrong_and_fails() {
    let variables = [("AUTH_TOKEN", "s3cret token"), ("KEEPALIVE_TIME", "soon"), ("CULVERT_TYPO", "1")];
    let ended = culvert(&["config", "--ipv6=maybe"], &variables).unwrap();
    let told = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{told}");
    for part in [
        "wrong in 5 places",
        "AUTH_TOKEN=(secret)",
        "KEEPALIVE_TIME=soon",
        "CULVERT_TYPO",
        "--ipv6=maybe",
        "nothing says what the mesh is",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(ended.stdout.is_empty() && !told.contains("s3cret"), "{told}");
}

#[test]
fn run_touches_nothing_while_something_is_wrong() {
    let run_dir = nowhere("run");
    let words = ["run", "--mesh", "/etc/mesh.yaml", "--run-dir", run_dir.to_str().unwrap()];
    let ended =
        culvert(&words, &[("HTTP2_CONNECTION_WINDOW_SIZE", "4194304"), ("LOG_FORMAT", "xml")]).unwrap();
    let told = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("stops all others") && told.contains("LOG_FORMAT=xml"), "{told}");
    assert!(ended.stdout.is_empty(), "the log did not start: {}", text(&ended.stdout));
    assert!(!run_dir.exists(), "nothing was made");
}
