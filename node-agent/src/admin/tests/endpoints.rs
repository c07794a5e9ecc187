//! Status codes and texts, as recorded of the peer; and what no one outside of this host gets.

use std::io::Read as _;

use super::*;

#[tokio::test]
async fn status_codes_are_those_that_tools_know() {
    let world = World::start("workloads: []").await;
    for (method, path, status) in [
        ("GET", "/", 200),
        ("GET", "/config_dump", 200),
        ("POST", "/config_dump", 200),
        ("PUT", "/config_dump", 405),
        ("GET", "/logging", 405),
        ("POST", "/logging?bogus=1", 200),
        ("POST", "/logging?level=nonsense", 400),
        ("POST", "/logging?level=xds:nonsense", 400),
        ("GET", "/nothing", 404),
        ("GET", "/quitquitquit", 405),
        ("GET", "/debug/pprof/profile?seconds=0", 400),
        ("GET", "/debug/pprof/profile?seconds=301", 400),
        ("GET", "/debug/pprof/heap?seconds=soon", 400),
        ("POST", "/debug/pprof/heap", 405),
        ("GET", "/ask", 405),
        ("POST", "/ask", 415),
    ] {
        assert_eq!(world.text(method, path).await.0, status, "{method} {path}");
    }
}

#[tokio::test]
async fn levels_are_shown_changed_and_reset() {
    let world = World::start("workloads: []").await;
    for (query, levels) in [
        ("", "info"),
        ("?level=debug", "debug"),
        ("?level=tunnel:hbone:trace,access=off", "tunnel::hbone=trace,access=off,debug"),
        ("?level=tunnel%3A%3Ahbone%3Dinfo", "access=off,tunnel::hbone=info,debug"),
        ("?bogus=1", "access=off,tunnel::hbone=info,debug"),
        ("?reset", "info"),
        ("?reset&level=warn", "warn"),
    ] {
        let expected = (200, format!("current log level is {levels}\n"));
        assert_eq!(world.text("POST", &format!("/logging{query}")).await, expected, "{query}");
    }
    let (_, refused) = world.text("POST", "/logging?level=xds:nonsense").await;
    assert!(refused.starts_with("Invalid level provided: xds:nonsense\n"), "{refused}");
    assert!(refused.contains("`nonsense` is not a level") && refused.contains("reset"), "{refused}");
    let (_, usage) = world.text("GET", "/logging").await;
    assert!(usage.starts_with("Invalid HTTP method\n"), "{usage}");
    assert_eq!(world.text("POST", "/logging").await.1, "current log level is warn\n");
}

#[tokio::test]
async fn the_agent_is_told_to_end() {
    let world = World::start("workloads: []").await;
    assert_eq!(world.text("POST", "/quitquitquit").await, (200, "shutting down now\n".to_owned()));
    tokio::time::timeout(std::time::Duration::from_secs(60), world.quit.notified()).await.unwrap();
}

#[tokio::test]
async fn the_index_lists_everything() {
    let world = World::start("workloads: []").await;
    let (_, page) = world.text("GET", "/").await;
    for (path, method, _) in super::super::index::ENDPOINTS {
        assert!(page.contains(&format!("<td>{method}</td>")) && page.contains(path), "{path}: {page}");
        let (status, _) = world.text("OPTIONS", path).await;
        assert_eq!(status, 405, "{path} is there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_of_the_command_line_are_answered_line_by_line() {
    use crate::admin_socket::protocol::{Answer, Command, Request};

    let world = World::start("workloads: []").await;
    let ask = async |content: &str, question: &str| {
        let head =
            format!("Host: localhost\r\nContent-Type: {content}\r\nContent-Length: {}", question.len());
        world.ask(&format!("POST /ask HTTP/1.1\r\n{head}\r\n\r\n{question}")).await
    };
    let question =
        String::from_utf8(Request::new(Command::Pods, Some("sleep".into())).encode().unwrap()).unwrap();
    assert_eq!(ask("application/json", &question).await.0, 503, "nobody answers yet");
    let respond = |request: &Request, send: &mut crate::admin_socket::Teller<'_>| {
        let levels = request.pod.clone().unwrap_or_default();
        send(Answer::Levels { levels })?;
        if request.command == Command::Metrics { Err(std::io::Error::other("broken")) } else { Ok(()) }
    };
    assert!(world.answers.set(Arc::new(respond)).is_ok());
    let (status, head, body) = ask("application/json; charset=utf-8", &question).await;
    assert!(status == 200 && head.contains("application/x-ndjson"), "{head}");
    let lines: Vec<Answer> =
        body.split_inclusive(|byte| *byte == b'\n').map(|line| Answer::decode(line).unwrap()).collect();
    assert_eq!(lines, [Answer::Levels { levels: "sleep".into() }, Answer::End]);
    // What breaks off has no end.
    let metrics = String::from_utf8(Request::new(Command::Metrics, None).encode().unwrap()).unwrap();
    let (_, _, body) = ask("application/json", &metrics).await;
    assert_eq!(body.iter().filter(|byte| **byte == b'\n').count(), 1);
    for (content, question, status) in [
        ("text/plain", question.as_str(), 415),
        ("application/json", "{\"version\":2}", 400),
        ("application/json", "garbage", 400),
    ] {
        assert_eq!(ask(content, question).await.0, status, "{content}: {question}");
    }
}

#[tokio::test]
async fn web_pages_and_long_bodies_are_refused() {
    let world = World::start("workloads: []").await;
    for (head, status) in [
        ("Host: evil.example", 403),
        ("Host: 127.0.0.1\r\nOrigin: http://evil.example", 403),
        ("Host: 127.0.0.1\r\nContent-Length: 5000", 413),
        ("Host: 127.0.0.1", 200),
        ("Host: [::1]:15000", 200),
    ] {
        let request = format!("POST /logging HTTP/1.1\r\n{head}\r\n\r\n");
        assert_eq!(world.ask(&request).await.0, status, "{head}");
    }
}

/// The bytes of a gzipped profile.
fn unzipped(profile: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(profile).read_to_end(&mut plain).unwrap();
    plain
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heap_profile_is_made_and_sampling_ends_with_it() {
    let world = World::start("workloads: []").await;
    let (status, head, profile) =
        world.ask("GET /debug/pprof/heap?seconds=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&profile));
    assert!(head.contains("heap.pb.gz"), "{head}");
    let plain = unzipped(&profile);
    assert!(plain.windows(11).any(|part| part == b"inuse_space"), "{} bytes", plain.len());
    let control = jemalloc_pprof::PROF_CTL.as_ref().unwrap();
    assert!(!control.lock().await.activated());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_processor_profile_is_made_and_a_second_one_has_to_wait() {
    let world = Arc::new(World::start("workloads: []").await);
    let path = "GET /debug/pprof/profile?seconds=2 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (first, second) = tokio::join!(world.ask(path), world.ask(path));
    let (made, refused) = if first.0 == 200 { (first, second) } else { (second, first) };
    assert_eq!((made.0, refused.0), (200, 409), "{}", String::from_utf8_lossy(&refused.2));
    assert!(unzipped(&made.2).windows(3).any(|part| part == b"cpu"));
}
