//! What others say to the agent on its own sockets, and how it is read: another agent ([`handover`]), the command line
//! ([`admin`]), an istio-cni ([`zds`]), and whoever asks the admin port ([`levels`], [`origin`]).
//!
//! Reading alone: no socket is opened here and nothing is done, so that strangers' bytes can be tried in any number without an
//! agent. The plugin's protocol is not here but with the plugin, which must stay small. Invariant: a message means one thing or is
//! an error that says what is wrong with it; nothing of it is in force before all of it was read.

#![forbid(unsafe_code)]

pub mod admin;
pub mod handover;
pub mod levels;
pub mod origin;
pub mod zds;
