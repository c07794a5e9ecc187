//! A recording that is played to the agent's client, step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control::xds::Parts;
use control_plane::records::Records;
use control_plane::wire::discovery::{ADDRESS, AUTHORIZATION, Request, Resource, Response};
use control_plane::{Ending, Recording};
use futures_util::future::join_all;
use mesh::route::Key;
use mesh::{NamespacedHostname, NetworkAddress, Snapshot};
use prost::Message as _;
use recordings::Line;

use super::model::{Model, never_without};
use crate::agent::{Agent, Setup};

/// google.rpc.Code: INVALID_ARGUMENT.
pub(super) const INVALID_ARGUMENT: i32 = 3;

/// A request in a form that does not depend on the order of names.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) node: Option<(String, BTreeMap<String, String>)>,
    pub(super) subscribe: BTreeSet<String>,
    pub(super) unsubscribe: BTreeSet<String>,
    pub(super) versions: BTreeMap<String, String>,
    pub(super) nonce: String,
    pub(super) refused: bool,
}

impl Asked {
    /// Of a request as it was on the wire.
    pub(super) fn of(request: Request) -> Result<Self> {
        let node = request.node.map(|node| {
            let keys = node.metadata.iter().flat_map(|metadata| metadata.fields.keys());
            let text = |key: &String| -> Result<_> {
                Ok((key.clone(), node.text(key).context("no text")?.to_owned()))
            };
            anyhow::Ok((node.id.clone(), keys.map(text).collect::<Result<_>>()?))
        });
        Ok(Self {
            node: node.transpose()?,
            subscribe: request.subscribe.into_iter().collect(),
            unsubscribe: request.unsubscribe.into_iter().collect(),
            versions: request.initial_resource_versions.into_iter().collect(),
            nonce: request.response_nonce,
            refused: request.error_detail.is_some(),
        })
    }
}

/// A client that has been played a part of a recording.
pub(super) struct Replay {
    pub(super) setup: Setup,
    pub(super) agent: Agent,
    pub(super) model: Model,
    moments: Arc<Mutex<Vec<Arc<Snapshot>>>>,
    /// How many responses are out on the present stream.
    count: usize,
    /// What the present stream must have been asked, by type.
    expected: BTreeMap<&'static str, Vec<Asked>>,
    /// Keys that were asked for on it.
    keys: BTreeSet<String>,
}

impl Replay {
    /// A client that has opened its stream, and was told nothing.
    pub(super) async fn start(lines: &[Line], parts: Parts, on_demand: bool) -> Result<Self> {
        let setup = Setup::new().await?;
        setup.plane.play(Recording::parse(&text(lines)?)?);
        let agent = setup.agent_as(parts, on_demand)?;
        let moments = agent.moments();
        let replay = Self {
            setup,
            agent,
            model: Model::default(),
            moments,
            count: 0,
            expected: BTreeMap::new(),
            keys: BTreeSet::new(),
        };
        Ok(replay)
    }

    /// Has the client come back, to another recording.
    pub(super) async fn come_back(&mut self, lines: &[Line]) -> Result<()> {
        let last = self.setup.stream()?.id;
        self.setup.plane.play(Recording::parse(&text(lines)?)?);
        self.setup.plane.end_connections(Ending::Graceful);
        self.setup.stream_after(last).await?;
        (self.count, self.expected) = (0, BTreeMap::new());
        self.keys.clear();
        Ok(())
    }

    /// Plays a recording to its end, or until its client does what ours never does; `after` looks at each step's outcome.
    pub(super) async fn run(
        &mut self,
        lines: &[Line],
        mut after: impl FnMut(&str, &Snapshot) -> Result<()>,
    ) -> Result<usize> {
        let mut steps = 0;
        for (name, step) in in_steps(lines) {
            let unsubscribes = |line: &&Line| {
                line.sent.as_ref().is_some_and(|sent| {
                    sent.get("node").is_none() && sent.get("resource_names_unsubscribe").is_some()
                })
            };
            if step.iter().any(unsubscribes) {
                break;
            }
            self.step(&step).await.with_context(|| format!("step {name:?}"))?;
            after(name, &self.agent.mesh()).with_context(|| format!("after {name:?}"))?;
            steps += 1;
        }
        self.compare_requests()?;
        Ok(steps)
    }

    async fn step(&mut self, lines: &[&Line]) -> Result<()> {
        let (before, model) = (self.agent.mesh(), self.model.clone());
        self.moments.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut wanted = Vec::new();
        for line in lines {
            if line.sent.is_some() {
                wanted.extend(self.sent(line)?);
            }
        }
        let received: Vec<&&Line> = lines.iter().filter(|line| line.received.is_some()).collect();
        let mut nonces = Vec::new();
        for line in &received {
            let response = Response::decode(line.raw.as_slice())?;
            if !is_refused(lines.iter().copied(), &response.nonce)? {
                self.model.receive(line)?;
            }
            nonces.push(response.nonce);
        }
        self.count += received.len();
        let demands = join_all(wanted.iter().map(|key| self.agent.demand(key)));
        let play = async {
            let come = |records: &Records| {
                let stream = records.last()?;
                let has =
                    |key: &String| stream.requests.iter().any(|request| request.subscribe.contains(key));
                (self.keys.iter().all(has) && stream.requests.len() >= 2).then_some(())
            };
            self.setup.plane.wait("what is asked for", come).await?;
            self.setup.plane.until(self.count);
            let answered = |records: &Records| {
                let stream = records.last()?;
                let is =
                    |nonce: &String| stream.requests.iter().any(|request| request.response_nonce == *nonce);
                nonces.iter().all(is).then_some(())
            };
            self.setup.plane.wait("answers to all responses", answered).await
        };
        let (found, played) = tokio::join!(demands, play);
        played?;
        ensure!(found.iter().all(|found| *found), "{found:?}");
        let moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let after = self.agent.mesh();
        self.model.compare(&after)?;
        ensure!(!self.model.is_like(&model) || moments.is_empty(), "published though nothing has changed");
        never_without(&before, moments.iter().map(|moment| &**moment), &after)
    }

    /// Notes what we are to send where that client sent something. Returns the keys that somebody has to want for that.
    fn sent(&mut self, line: &Line) -> Result<Vec<Key>> {
        let request = Request::decode(line.raw.as_slice())?;
        let type_url = if request.type_url == ADDRESS { ADDRESS } else { AUTHORIZATION };
        let mut asked = Asked::of(request)?;
        if asked.node.is_some() {
            // That client has made up some of what it holds; we say what we do.
            asked.versions = self.model.versions(type_url);
        } else if !asked.subscribe.is_empty() {
            return self.keys_of(&asked.subscribe);
        }
        self.expected.entry(type_url).or_default().push(asked);
        Ok(Vec::new())
    }

    /// We ask for one key at a time, and for none that is there or that was answered just now; never for a uid.
    fn keys_of(&mut self, texts: &BTreeSet<String>) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        for text in texts.iter().filter(|text| !text.starts_with("Kubernetes/")) {
            let mesh = self.agent.mesh();
            let (key, is_there) = match text.parse::<NetworkAddress>() {
                Ok(address) => {
                    let is_there = mesh.workload_by_address(&address).is_some()
                        || mesh.service_by_vip(&address, "").is_some();
                    (Key::Address(address), is_there)
                }
                Err(_) => {
                    let name: NamespacedHostname = text.parse()?;
                    let is_there = mesh.service(&name).is_some();
                    (Key::Hostname(name), is_there)
                }
            };
            keys.push(key);
            if !is_there && self.keys.insert(text.clone()) {
                self.expected.entry(ADDRESS).or_default().push(Asked {
                    node: None,
                    subscribe: [text.clone()].into(),
                    unsubscribe: BTreeSet::new(),
                    versions: BTreeMap::new(),
                    nonce: String::new(),
                    refused: false,
                });
            }
        }
        Ok(keys)
    }

    /// Field by field, in their order.
    fn compare_requests(&self) -> Result<()> {
        let stream = self.setup.stream()?;
        for type_url in [ADDRESS, AUTHORIZATION] {
            let ours = stream.of(type_url).cloned().map(Asked::of).collect::<Result<Vec<_>>>()?;
            let expected = self.expected.get(type_url).context("nothing was expected")?;
            for (ours, expected) in ours.iter().zip(expected) {
                ensure!(ours == expected, "{type_url}\n expected {expected:#?}\n sent {ours:#?}");
            }
            ensure!(ours.len() == expected.len(), "{type_url}: {} and {}", ours.len(), expected.len());
        }
        Ok(())
    }
}

/// The steps, with the lines of each.
fn in_steps(lines: &[Line]) -> Vec<(&str, Vec<&Line>)> {
    let mut steps: Vec<(&str, Vec<&Line>)> = Vec::new();
    for line in lines {
        match (&line.step, steps.last_mut()) {
            (Some(step), _) => steps.push((step.as_str(), Vec::new())),
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => {}
        }
    }
    steps
}

/// Whether that client refused a response.
fn is_refused<'a>(mut lines: impl Iterator<Item = &'a Line>, nonce: &str) -> Result<bool> {
    let answer = lines.find_map(|line| {
        line.sent.as_ref().filter(|sent| sent.get("response_nonce").is_some_and(|of| of == nonce))
    });
    Ok(answer.is_some_and(|sent| sent.get("error_detail").is_some()))
}

/// The responses as they are played: byte for byte, but for those that were refused for the sake of it, for which we need a
/// reason.
fn text(lines: &[Line]) -> Result<String> {
    let mut text = String::new();
    for line in lines.iter().filter(|line| line.received.is_some()) {
        let response = Response::decode(line.raw.as_slice())?;
        let mut raw = line.raw.clone();
        if is_refused(lines.iter(), &response.nonce)? {
            raw = spoiled(response)?.encode_to_vec();
        }
        text += &serde_json::json!({"ms": line.ms, "received": {}, "raw": STANDARD.encode(raw)}).to_string();
        text.push('\n');
    }
    Ok(text)
}

fn spoiled(mut response: Response) -> Result<Response> {
    for bytes in &mut response.resources {
        let mut resource = Resource::decode(bytes.clone())?;
        resource.resource.as_mut().context("no body")?.value = vec![0xff; 3];
        *bytes = resource.encode_to_vec().into();
    }
    Ok(response)
}
