//! The stand-in as a process of its own: it serves the objects of files, and does what it is told on its input.
//!
//! Once it listens it prints `listening ADDRESS`. Each line of input is a command, answered by `ok`, by what was asked for in one
//! line of JSON, or by `error: …`; it ends with its input, at once.
//!
//! | Command | What it does |
//! |---|---|
//! | `apply FILE` | creates or replaces an object, or each of a list of them, JSON |
//! | `patch RESOURCE NAMESPACE NAME JSON` | changes an object by a merge patch; `-` for no namespace |
//! | `delete RESOURCE NAMESPACE NAME` | deletes an object |
//! | `lose RESOURCE NAMESPACE NAME` | deletes an object without a word to whoever watches |
//! | `get RESOURCE NAMESPACE NAME` | prints an object, or `null` |
//! | `pods LOG` | from now on ports of every pod are this machine's, commands are run on it, and a file is shown as the log |
//! | `fail VERB STATUS TIMES` | refuses the next requests of a verb (get, list, watch, patch, delete, portforward, exec, log) |
//! | `stall VERB TIMES` | does not answer the next requests of a verb |
//! | `behave` | takes both back |
//! | `compact` | tells watches of old versions that they are gone |
//! | `hang-up` | ends all watches |

use std::io::{self, BufRead as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use kube_api::{Fault, KubeApi, Resource};
use serde_json::Value;

/// An API server of Kubernetes for tests.
#[derive(Parser)]
struct Args {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where its keys, token and kubeconfig lie; made if they are not there.
    #[arg(long)]
    dir: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut api = KubeApi::new(&args.dir)?;
    api.start(TcpListener::bind(args.listen).with_context(|| format!("listen on {}", args.listen))?)?;
    say(&format!("listening {}", api.address()?))?;
    for line in std::io::stdin().lock().lines() {
        match obey(&api, &line?) {
            Ok(None) => say("ok")?,
            Ok(Some(object)) => say(&object.to_string())?,
            Err(error) => say(&format!("error: {error:#}"))?,
        }
    }
    Ok(())
}

fn obey(api: &KubeApi, line: &str) -> Result<Option<Value>> {
    let words: Vec<_> = line.splitn(5, ' ').collect();
    match words.as_slice() {
        ["apply", file] => {
            let text = std::fs::read_to_string(file).with_context(|| (*file).to_owned())?;
            match serde_json::from_str(&text)? {
                Value::Array(objects) => objects.iter().try_for_each(|object| api.apply(object).map(drop))?,
                object => drop(api.apply(&object)?),
            }
        }
        ["patch", resource, namespace, name, changes] => {
            api.patch(named(resource)?, in_it(namespace), name, &serde_json::from_str(changes)?)?;
        }
        ["delete", resource, namespace, name] => api.delete(named(resource)?, in_it(namespace), name),
        ["lose", resource, namespace, name] => api.delete_silently(named(resource)?, in_it(namespace), name),
        ["get", resource, namespace, name] => {
            return Ok(Some(api.get(named(resource)?, in_it(namespace), name).unwrap_or_default()));
        }
        ["pods", log] => {
            api.show_log(Path::new(log));
            api.carry(|_, _, port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)));
            api.run_commands(|_, _, words| {
                let (program, arguments) =
                    words.split_first().ok_or_else(|| io::Error::other("no command"))?;
                Command::new(program).args(arguments).stdin(Stdio::null()).output()
            });
        }
        ["fail", verb, status, times] => api.fail(verb, Fault::Status(status.parse()?), times.parse()?)?,
        ["stall", verb, times] => api.fail(verb, Fault::Stall, times.parse()?)?,
        ["behave"] => api.behave(),
        ["compact"] => api.compact(),
        ["hang-up"] => api.hang_up(),
        _ => bail!("there is no command {line:?}"),
    }
    Ok(None)
}

fn named(plural: &str) -> Result<Resource> {
    Resource::named(plural).with_context(|| format!("{plural} are not served"))
}

fn in_it(namespace: &str) -> &str {
    if namespace == "-" { "" } else { namespace }
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
