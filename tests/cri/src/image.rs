//! An image without a registry: an archive in the OCI image layout, of one layer, that a runtime imports.
//!
//! The layer is not compressed: it is read once, on this machine.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// What pods name it by.
pub const NAME: &str = "localhost/pod-app:1";

/// Packs a root file system; its container runs `command` unless it is told otherwise.
pub fn write(rootfs: &Path, command: &[&str], archive: &Path) -> Result<()> {
    let what = || format!("writing {}", archive.display());
    let layer = layer(rootfs).with_context(what)?;
    let config = json!({
        "architecture": architecture(), "os": "linux", "config": { "Entrypoint": command },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    })
    .to_string()
    .into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described("application/vnd.oci.image.config.v1+json", &config),
        "layers": [described("application/vnd.oci.image.layer.v1.tar", &layer)],
    })
    .to_string()
    .into_bytes();
    let mut entry = described("application/vnd.oci.image.manifest.v1+json", &manifest);
    if let Some(entry) = entry.as_object_mut() {
        // The one is containerd's, the other the specification's.
        let names = json!({ "io.containerd.image.name": NAME, "org.opencontainers.image.ref.name": NAME });
        entry.insert("annotations".to_owned(), names);
    }
    let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
    let mut tar = tar::Builder::new(File::create(archive).with_context(what)?);
    append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut tar, "index.json", index.as_bytes())?;
    for blob in [&layer, &config, &manifest] {
        append(&mut tar, &format!("blobs/{}", digest(blob).replace(':', "/")), blob)?;
    }
    tar.into_inner().and_then(|mut file| file.flush()).with_context(what)
}

fn layer(rootfs: &Path) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.mode(tar::HeaderMode::Deterministic);
    tar.append_dir_all(".", rootfs)?;
    tar.into_inner()
}

fn append(tar: &mut tar::Builder<File>, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes)
}

fn described(kind: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": digest(blob), "size": blob.len() })
}

fn digest(blob: &[u8]) -> String {
    let hex: String = Sha256::digest(blob).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// The machine's, as Go calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
