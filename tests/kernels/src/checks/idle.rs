//! Connections that are there and do nothing, from one pod to another through one pair of agents: more than a process may hold descriptors
//! for on many a machine, but not on this one.
//!
//! Each is known to lead to the other pod's application before the next step, and has to carry something after all of them were idle.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use linux::netns::Netns;
use socket2::{Domain, Protocol, Socket, Type};

use super::Progress;
use super::pair::{Agent, Pair, RIGHT};

/// Where the application listens. To one port alone the kernel would look through thousands of ports of the client's for each new one, once
/// half of them are used.
const PORTS: [u16; 4] = [8081, 8082, 8083, 8084];
/// Threads that open connections to each.
const CLIENTS: usize = 2;
/// Longest wait for one of them: what is said on all of them at once takes its time where the processor is emulated.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long they do nothing.
const IDLE: Duration = Duration::from_secs(2);
/// After how many it is told how many there are.
const STEP: usize = 2_000;
/// Descriptors of an agent that come and go.
const FEW: usize = 64;
/// What the application says to whoever comes, and gives back.
const HELLO: &[u8; 1] = b"h";
const WORD: &[u8; 1] = b"w";

pub(super) fn run(progress: &mut Progress, pair: &Pair, count: usize) -> Result<()> {
    progress.check(&format!("{count} idle connections go through one pair of agents"), || {
        // This process has both ends of each.
        let limit = linux::limits::raise_descriptors()?;
        ensure!(limit as usize > count * 2 + FEW, "no more than {limit} descriptors may be held");
        let before = held(pair)?;
        let memory = memory(pair)?;
        let family = pair.families.first().context("no family")?;
        let places = PORTS.map(|port| family.of(RIGHT, port));
        // With one that comes late.
        let each = count.div_ceil(PORTS.len());
        let apps = places.map(|place| serve(&pair.right, place, each + 1));
        let began = Instant::now();
        let clients = open_all(&pair.left, &places, each)?;
        let took = began.elapsed();
        let during = held(pair)?;
        for ((agent, before), during) in pair.agents.iter().zip(&before).zip(&during) {
            ensure!(
                during - before >= count,
                "{count} connections, and {} holds {before} descriptors before and {during} now",
                agent.name
            );
        }
        for (agent, (before, now)) in pair.agents.iter().zip(memory.iter().zip(self::memory(pair)?)) {
            let each = now.saturating_sub(*before) as f64 / count as f64;
            println!("            {}: {now} KiB, {each:.1} for each", agent.name);
        }
        println!("            opened in {:.1} s", took.as_secs_f64());
        sleep(IDLE);
        // Somebody else is served meanwhile, and then each of them.
        let late = places.map(|place| Client::open(&pair.left, place));
        let all = clients.into_iter().map(Ok).chain(late).collect::<Result<Vec<_>>>()?;
        let said = Instant::now();
        for client in &all {
            (&client.stream).write_all(WORD).context("writing to what was idle")?;
        }
        println!("            all have spoken after {:.1} s", said.elapsed().as_secs_f64());
        let clients = all.into_iter().enumerate().try_for_each(|(number, client)| {
            client.end().with_context(|| format!("the client of number {number}"))
        });
        println!("            and heard after {:.1} s", said.elapsed().as_secs_f64());
        // What the application has met comes first: clients see its end.
        for app in apps {
            app?.join().map_err(|_| anyhow!("the application panicked"))?.context("the application")?;
        }
        clients?;
        let end = Instant::now() + PATIENCE;
        while held(pair)?.iter().zip(&before).any(|(now, before)| *now > before + FEW) {
            ensure!(Instant::now() < end, "descriptors: {before:?} before, and {:?} long after", held(pair)?);
            sleep(Duration::from_millis(100));
        }
        Ok(())
    })
}

fn held(pair: &Pair) -> Result<Vec<usize>> {
    pair.agents.iter().map(Agent::descriptors).collect()
}

fn memory(pair: &Pair) -> Result<Vec<u64>> {
    pair.agents.iter().map(Agent::memory).collect()
}

/// The application: says hello to each of `count` connections, and once all are there gives each back what it says.
fn serve(pod: &Netns, at: SocketAddr, count: usize) -> Result<JoinHandle<Result<()>>> {
    let listener = pod.run(|| TcpListener::bind(at))??;
    Ok(std::thread::spawn(move || {
        let (mut all, began) = (Vec::with_capacity(count), Instant::now());
        while all.len() < count {
            if all.len() % STEP == 0 {
                println!("            {at}: {} after {:.1} s", all.len(), began.elapsed().as_secs_f64());
            }
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(HELLO)?;
            all.push(stream);
        }
        // Its clients wait for their words in an order of their own.
        for (number, stream) in all.iter_mut().enumerate() {
            let mut word = [0; 1];
            stream
                .read_exact(&mut word)
                .with_context(|| format!("waiting for a word from number {number}"))?;
            stream.write_all(&word)?;
        }
        for (number, mut stream) in all.into_iter().enumerate() {
            let mut heard = Vec::new();
            stream
                .read_to_end(&mut heard)
                .with_context(|| format!("waiting for the end of number {number}"))?;
            ensure!(heard.is_empty(), "{heard:?} came unasked");
        }
        Ok(())
    }))
}

/// Opens `each` to each place.
fn open_all(pod: &Netns, places: &[SocketAddr], each: usize) -> Result<Vec<Client>> {
    std::thread::scope(|scope| {
        let open = |to: SocketAddr, number: usize| {
            let own = each / CLIENTS + usize::from(number < each % CLIENTS);
            scope.spawn(move || (0..own).map(|_| Client::open(pod, to)).collect::<Result<Vec<_>>>())
        };
        let threads: Vec<_> =
            places.iter().flat_map(|to| (0..CLIENTS).map(move |number| open(*to, number))).collect();
        let mut all = Vec::with_capacity(each * places.len());
        for thread in threads {
            all.extend(thread.join().map_err(|_| anyhow!("a client panicked"))??);
        }
        Ok(all)
    })
}

/// A connection that the application has said hello on.
struct Client {
    stream: TcpStream,
}

impl Client {
    fn open(pod: &Netns, to: SocketAddr) -> Result<Self> {
        let socket =
            pod.run(|| Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)))??;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut hello = [0; 1];
        (&stream).read_exact(&mut hello).context("waiting for the application's first word")?;
        ensure!(&hello == HELLO, "the application said {hello:?} first");
        Ok(Self { stream })
    }

    /// Hears what it has said, and ends.
    fn end(self) -> Result<()> {
        let mut word = [0; 1];
        (&self.stream).read_exact(&mut word).context("a connection that was idle")?;
        ensure!(&word == WORD, "{word:?} came back");
        Ok(())
    }
}
