//! What says what the mesh is, for whoever asks how that one is doing.

use std::path::PathBuf;
use std::sync::Arc;

use control::file::FileCounters;
use control::xds;

/// The one source of the mesh.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A control plane.
    ControlPlane(Arc<xds::Client>),
    /// A file, where there is no control plane.
    File {
        /// Where it is.
        path: PathBuf,
        /// What became of its versions.
        counters: Arc<FileCounters>,
    },
}
