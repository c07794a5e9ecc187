//! Resources that are asked for when a connection needs them.
//!
//! Owns nothing: who brings them is outside. Invariant: a connection waits for an answer, never for longer than
//! [`crate::Timeouts::demand`]; after that it goes where what is known by then sends it, as it would with the whole mesh at
//! hand. What is not known at all was either asked for in vain, which says that it is not of the mesh, or could not be asked
//! for: then the connection is refused, for it might be one that belongs into a tunnel.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use mesh::Flow;
use mesh::route::{Key, missing};
use tokio::time::{Instant, timeout_at};

use crate::scope::Shared;

/// Brings resources of the mesh that are asked for one at a time.
pub trait Demand: Send + Sync + fmt::Debug {
    /// Completes with true when whatever has this key is in the store, or is known to be nobody's; with false if that
    /// cannot be found out now. Asking for what is there already costs nothing worth counting.
    fn find<'a>(&'a self, key: &'a Key) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>>;
}

/// Rounds of asking: the destination, what stands before it, what stands before that.
const ROUNDS: usize = 3;

/// Asks for what the way of a connection lacks, if the mesh is not there as a whole.
///
/// # Errors
/// The first key that could not be found out.
pub(crate) async fn learn(shared: &Shared, flow: &Flow<'_>) -> Result<(), Unknown> {
    let Some(demand) = &shared.demand else { return Ok(()) };
    let deadline = Instant::now() + shared.config.timeouts.demand;
    let mut asked = Vec::new();
    for _ in 0..ROUNDS {
        let mut keys = missing(&shared.store.load(), flow);
        keys.retain(|key| !asked.contains(key));
        if keys.is_empty() {
            break;
        }
        for key in keys {
            if !timeout_at(deadline, demand.find(&key)).await.unwrap_or(false) {
                return Err(Unknown(key));
            }
            asked.push(key);
        }
    }
    Ok(())
}

/// The control plane did not say who has this.
#[derive(Debug, thiserror::Error)]
#[error("the control plane did not tell in time who is {0}")]
pub(crate) struct Unknown(Key);
