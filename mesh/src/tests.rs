//! The crate as a whole: what a real control plane's mesh comes to, and properties that hold for any mesh.

mod balancing;
mod bookinfo;
mod model;
mod policies;
mod recorded_policies;
mod recorded_routes;
mod routes;
