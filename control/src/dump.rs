//! The mesh as it is shown: workloads, services and policies in the words of `/config_dump`.
//!
//! Names, spellings and absences are those that existing tools read; the file source reads the same words, so what is
//! shown can be loaded again. Invariant: showing only borrows from a snapshot, changes nothing and cannot fail.

mod policy;
mod service;
#[cfg(test)]
mod tests;
mod words;
mod workload;

pub use self::policy::PolicyView;
pub use self::service::{EndpointView, ServiceView, endpoints};
pub use self::workload::WorkloadView;

/// How much of a resource is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As the mesh joins it: a service has its endpoints, a workload names its services.
    Joined,
    /// As it was given: a workload has its services with their ports, a service has no endpoints of its own.
    Given,
}
