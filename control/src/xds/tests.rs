//! Subscriptions, what is made of responses, conversations with a real control plane, and streams over real gRPC.

mod bad_input;
mod endings;
mod replay;
mod session;
