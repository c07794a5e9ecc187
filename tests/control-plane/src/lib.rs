//! A control plane for tests: delta discovery and a certificate authority over real gRPC and TLS, played by a script.
//!
//! It is written from the tables of the protocol and shares no message and no decoding with the agent's client, so
//! that the two judge each other. It behaves as a recorded istiod does where it serves, and does what a test asks
//! where it does not. Not for production: whoever brings a token that is not empty is the node agent's account.

#![forbid(unsafe_code)]

mod authority;
pub mod build;
mod calls;
mod codec;
pub mod file;
pub mod generate;
mod lent;
mod plane;
pub mod records;
mod replay;
mod resource;
mod script;
mod server;
mod session;
mod shared;
mod stream;
pub mod wire;
mod world;

pub use self::authority::{Answer, Chain};
pub use self::plane::{ControlPlane, Options};
pub use self::replay::Recording;
pub use self::resource::Resource;
pub use self::script::{Admission, Door, Ending, Push};
pub use self::world::World;
