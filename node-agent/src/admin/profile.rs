//! Profiles of the running agent, as gzipped protobuf of pprof.
//!
//! Invariant: while nobody asks, nothing is sampled; one profile is made at a time, for a bounded time, and if the one who
//! asked goes away, it ends.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use jemalloc_pprof::{JemallocProfCtl, PROF_CTL};
use pprof::protos::Message as _;
use tokio::sync::{Mutex, OwnedSemaphorePermit};

use super::{Shared, TEXT};

/// How long is sampled if nothing is said.
const DEFAULT: u64 = 10;
/// How long is sampled at most.
const LONGEST: u64 = 300;
/// Samples a second of processor time; no divisor of round periods.
const FREQUENCY: i32 = 99;
/// Where a signal must not look at the stack, for the frames may be half made.
const BLOCKED: [&str; 4] = ["libc", "libgcc", "pthread", "vdso"];
/// Said in place of a profile while another one is made.
const BUSY: &str = "another profile is being made, ask again when it is done\n";

/// Answers with where processor time goes from now on.
pub(super) async fn processor(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let (seconds, _permit) = match begin(&shared, query) {
        Ok(begun) => begun,
        Err(refused) => return refused.into_response(),
    };
    let blocked = BLOCKED.as_slice();
    let guard = match pprof::ProfilerGuardBuilder::default().frequency(FREQUENCY).blocklist(blocked).build() {
        Ok(guard) => guard,
        Err(error) => return failed(&error),
    };
    tokio::time::sleep(seconds).await;
    // Finding the names of functions takes a while.
    let made = tokio::task::spawn_blocking(move || -> anyhow::Result<Vec<u8>> {
        let profile = guard.report().build()?.pprof()?;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&profile.encode_to_vec())?;
        Ok(encoder.finish()?)
    });
    answer("profile.pb.gz", made.await)
}

/// Answers with what is allocated from now on and is still there at the end; if sampling has been on since the start, with
/// all that is there.
pub(super) async fn heap(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let asked = query.as_deref().is_some_and(|query| query.contains("seconds="));
    let (seconds, _permit) = match begin(&shared, query) {
        Ok(begun) => begun,
        Err(refused) => return refused.into_response(),
    };
    let Some(control) = PROF_CTL.as_ref() else {
        let own = linux::malloc::options();
        let why =
            format!("the allocator makes no profiles: MALLOC_CONF of the environment overrules {own}\n");
        return refused(StatusCode::NOT_IMPLEMENTED, why).into_response();
    };
    let sampling = match Sampling::begin(Arc::clone(control)).await {
        Ok(sampling) => sampling,
        Err(error) => return failed(&error),
    };
    if asked || sampling.is_ours {
        tokio::time::sleep(seconds).await;
    }
    let made = tokio::task::spawn_blocking(move || sampling.control.blocking_lock().dump_pprof());
    answer("heap.pb.gz", made.await)
}

/// Sampling of allocations; if it was begun for one profile, it ends with that.
struct Sampling {
    control: Arc<Mutex<JemallocProfCtl>>,
    is_ours: bool,
}

impl Sampling {
    async fn begin(control: Arc<Mutex<JemallocProfCtl>>) -> anyhow::Result<Self> {
        let is_ours = {
            let mut locked = control.lock().await;
            let is_ours = !locked.activated();
            if is_ours {
                locked
                    .activate()
                    .map_err(|error| anyhow::anyhow!("sampling cannot be switched on: {error}"))?;
            }
            is_ours
        };
        Ok(Self { control, is_ours })
    }
}

impl Drop for Sampling {
    fn drop(&mut self) {
        if !self.is_ours {
            return;
        }
        // One profile is made at a time, and this is its end: nobody else holds the lock.
        let ended = self.control.try_lock().map(|mut control| control.deactivate());
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("sampling of allocations could not be switched off");
        }
    }
}

/// A request for a profile that is not made.
type Refused = (StatusCode, [(HeaderName, &'static str); 1], String);

fn refused(status: StatusCode, why: String) -> Refused {
    (status, [(header::CONTENT_TYPE, TEXT)], why)
}

/// How long to sample, and the right to do so.
fn begin(shared: &Shared, query: Option<String>) -> Result<(Duration, OwnedSemaphorePermit), Refused> {
    let query = query.unwrap_or_default();
    let said = query.split('&').find_map(|pair| pair.strip_prefix("seconds="));
    let seconds = match said.map(str::parse) {
        None => DEFAULT,
        Some(Ok(seconds)) if (1..=LONGEST).contains(&seconds) => seconds,
        Some(_) => {
            let why = format!("seconds must be a number from 1 to {LONGEST}\n");
            return Err(refused(StatusCode::BAD_REQUEST, why));
        }
    };
    match Arc::clone(&shared.profiling).try_acquire_owned() {
        Ok(permit) => Ok((Duration::from_secs(seconds), permit)),
        Err(_) => Err(refused(StatusCode::CONFLICT, BUSY.to_owned())),
    }
}

fn answer(name: &str, made: Result<anyhow::Result<Vec<u8>>, tokio::task::JoinError>) -> Response {
    let profile = match made {
        Ok(Ok(profile)) => profile,
        Ok(Err(error)) => return failed(&error),
        Err(error) => return failed(&error),
    };
    let headers: [(HeaderName, String); 2] = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    (StatusCode::OK, headers, profile).into_response()
}

fn failed(error: &impl std::fmt::Display) -> Response {
    let why = format!("no profile: {error}\n");
    refused(StatusCode::INTERNAL_SERVER_ERROR, why).into_response()
}
