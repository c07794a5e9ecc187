//! What this agent was built from.

use serde::Serialize;

/// The build, under the keys that tools print.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VersionView {
    version: &'static str,
    git_revision: &'static str,
    rust_version: &'static str,
    build_profile: &'static str,
    build_status: &'static str,
    crypto_provider: &'static str,
    istio_version: &'static str,
}

/// Shows this build. What its builder did not say is unknown.
pub(super) fn view() -> VersionView {
    VersionView {
        version: env!("CARGO_PKG_VERSION"),
        git_revision: option_env!("CULVERT_GIT_REVISION").unwrap_or("unknown"),
        rust_version: env!("CARGO_PKG_RUST_VERSION"),
        build_profile: if cfg!(debug_assertions) { "debug" } else { "release" },
        build_status: option_env!("CULVERT_BUILD_STATUS").unwrap_or("unknown"),
        crypto_provider: "tls-aws-lc",
        istio_version: "unknown",
    }
}
