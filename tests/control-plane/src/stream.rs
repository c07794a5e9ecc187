//! One stream of discovery: who is let in, what is answered, what is pushed, until it ends.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::records::Headers;
use crate::replay::Playing;
use crate::script::{Admission, Command};
use crate::session::Session;
use crate::shared::{Shared, lock};
use crate::wire::discovery::{Node, Request, Response};

/// The account whose token the clients bring.
const NAMESPACE: &str = "istio-system";
const ACCOUNT: &str = "ztunnel";

type Out = mpsc::Sender<Result<Bytes, Status>>;

/// Notes a stream, and decides whether it is answered at all, or why there is none.
pub(crate) fn admit(shared: &Arc<Shared>, headers: Headers) -> Result<Admitted, Status> {
    let (id, commands) = shared.begin(headers.clone());
    let admitted = match shared.admission() {
        Admission::Refuse(code, message) => Err(Status::new(code, message)),
        Admission::Mute => Ok(true),
        Admission::Serve => shared.authenticate(&headers, "authentication failure").map(|()| false),
    };
    let mute = admitted.inspect_err(|status| shared.end(id, Some(status)))?;
    Ok(Admitted { shared: Arc::clone(shared), id, commands, mute })
}

/// A stream that is let in.
pub(crate) struct Admitted {
    shared: Arc<Shared>,
    id: u64,
    commands: mpsc::Receiver<Command>,
    mute: bool,
}

impl Admitted {
    /// Serves it to its end.
    pub(crate) async fn serve(self, requests: Streaming<Request>, out: Out) {
        let Self { shared, id, commands, mute } = self;
        let playing = lock(&shared.script).recording.clone().map(Playing::new);
        let serving = Serving { shared: &shared, id, session: None, playing, mute, out: &out };
        let served = serving.run(requests, commands).await;
        shared.end(id, served.as_ref().err());
        if let Err(status) = served {
            // The client may have gone.
            let _ = out.send(Err(status)).await;
        }
    }
}

struct Serving<'a> {
    shared: &'a Shared,
    id: u64,
    session: Option<Session>,
    /// What is played in place of what the session would say.
    playing: Option<Playing>,
    mute: bool,
    out: &'a Out,
}

impl Serving<'_> {
    async fn run(
        mut self,
        mut requests: Streaming<Request>,
        mut commands: mpsc::Receiver<Command>,
    ) -> Result<(), Status> {
        let mut revision = self.shared.revision.subscribe();
        let mut resend = self.shared.resend.subscribe();
        let mut until = self.shared.until.subscribe();
        loop {
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.request(request).await?,
                    Ok(None) => return Ok(()),
                    Err(status) => return Err(status),
                },
                // Neither sender ends before the server.
                Ok(()) = revision.changed() => {
                    let responses = match (&mut self.session, self.mute || self.playing.is_some()) {
                        (Some(session), false) => session.push(&lock(&self.shared.world))?,
                        _ => Vec::new(),
                    };
                    self.respond(responses).await?;
                }
                Ok(()) = resend.changed() => {
                    let responses = match (&mut self.session, self.mute || self.playing.is_some()) {
                        (Some(session), false) => session.resend(&lock(&self.shared.world)),
                        _ => Vec::new(),
                    };
                    self.respond(responses).await?;
                }
                Ok(()) = until.changed() => self.play().await?,
                Some(command) = commands.recv() => match command {
                    Command::Send { type_url, nonce, message } => self.send(&type_url, &nonce, message).await?,
                    Command::End(status) => return Err(status),
                    Command::Mute => self.mute = true,
                },
                () = self.out.closed() => return Ok(()),
            }
        }
    }

    async fn request(&mut self, request: Request) -> Result<(), Status> {
        self.shared.note(|records| {
            if let Some(stream) = records.stream(self.id) {
                stream.request(request.clone());
            }
        });
        if self.mute {
            return Ok(());
        }
        let session = match &mut self.session {
            Some(session) => session,
            None => {
                let node = request
                    .node
                    .as_ref()
                    .ok_or_else(|| Status::invalid_argument("missing node information"))?;
                check(node)?;
                self.session.insert(Session::new(self.id, node.text("NODE_NAME").unwrap_or_default()))
            }
        };
        if let Some(playing) = &mut self.playing {
            playing.asked(&request.type_url);
            return self.play().await;
        }
        let response = session.request(&lock(&self.shared.world), &request);
        self.respond(response.into_iter().collect()).await
    }

    /// Sends what is due of a recording.
    async fn play(&mut self) -> Result<(), Status> {
        let until = *self.shared.until.borrow();
        let due = self.playing.as_mut().filter(|_| !self.mute).map(|playing| playing.due(until));
        for recorded in due.into_iter().flatten() {
            self.send(&recorded.type_url, &recorded.nonce, recorded.message).await?;
        }
        Ok(())
    }

    async fn respond(&self, responses: Vec<Response>) -> Result<(), Status> {
        for response in responses {
            let message = response.encode_to_vec().into();
            self.send(&response.type_url, &response.nonce, message).await?;
        }
        Ok(())
    }

    async fn send(&self, type_url: &str, nonce: &str, message: Bytes) -> Result<(), Status> {
        self.shared.note(|records| {
            if let Some(stream) = records.stream(self.id) {
                stream.answer(type_url, nonce);
            }
        });
        let gone = |_| Status::cancelled("the client has gone");
        self.out.send(Ok(message)).await.map_err(gone)
    }
}

/// Whether a node is one that istiod reads, and of the token's account.
fn check(node: &Node) -> Result<(), Status> {
    let parts: Vec<_> = node.id.split('~').collect();
    let [kind, address, name, domain] = parts.as_slice() else {
        return Err(Status::invalid_argument(format!("missing parts in the service node {:?}", node.id)));
    };
    if *kind != "ztunnel" {
        return Err(Status::invalid_argument(format!("invalid node type {kind:?}")));
    }
    if address.parse::<IpAddr>().is_err() {
        return Err(Status::invalid_argument(format!("invalid IP address {address:?}")));
    }
    if name.is_empty() || domain.is_empty() {
        return Err(Status::invalid_argument(format!("missing parts in the service node {:?}", node.id)));
    }
    let namespace = node.text("NAMESPACE").unwrap_or_default();
    let account = node.text("SERVICE_ACCOUNT").unwrap_or(ACCOUNT);
    if (namespace, account) != (NAMESPACE, ACCOUNT) {
        let token = format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/{ACCOUNT}");
        let words = format!("authorization failed: no identities ([{token}]) matched {namespace}/{account}");
        return Err(Status::permission_denied(words));
    }
    Ok(())
}
