//! What is said to who asks for a walk-through: which there are, and of one that there is not that it is not.

use std::process::Command;

use anyhow::{Result, ensure};

/// What the program says, and whether it ended well.
fn asked(word: &str) -> Result<(String, bool)> {
    let output = Command::new(env!("CARGO_BIN_EXE_scenarios")).arg(word).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((String::from_utf8_lossy(&said).into_owned(), output.status.success()))
}

#[test]
fn each_is_named_and_another_name_is_refused() -> Result<()> {
    let (help, is_well) = asked("--help")?;
    ensure!(is_well, "{help}");
    let (said, is_well) = asked("bokinfo")?;
    ensure!(!is_well && said.contains("bokinfo"), "{said}");
    for name in ["bookinfo", "split", "delay", "authorization", "ingress", "move"] {
        ensure!(help.contains(name) && said.contains(name), "{name}: {help}\n{said}");
    }
    Ok(())
}
