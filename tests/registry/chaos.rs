//! Random faults: a push or a pull ends well with the right bytes, or in time with an error that says what and where.
//! An image tag never names what is not all there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use imgdecl::parts::registry::{Limits, RegistryError};

use super::kit::{Making, Rig, assert_holds, image};
use crate::support::Random;
use crate::support::registry::{Auth, PASSWORD, Quirks, Rule, Server, Setup, USER};

/// How many schedules each way.
const SCHEDULES: u64 = 200;
/// How many run at once.
const THREADS: u64 = 4;
/// No schedule takes longer: tries times time limits, for the few requests that one image needs.
const LONGEST: Duration = Duration::from_secs(8);

fn rig(server: &Server) -> Rig {
    Making {
        limits: Some(Limits {
            connect: Duration::from_millis(500),
            idle: Duration::from_millis(120),
            tries: 3,
            backoff: Duration::from_millis(2),
            retry_after: Duration::from_millis(20),
            total: Duration::from_millis(300),
        }),
        ..Making::login(&[server.host()])
    }
    .build()
}

/// A fault that nobody thought of. What lies gives other bytes and says that all is well.
fn fault(random: &mut Random, patterns: &[&str], lies: bool) -> Rule {
    let on = patterns[random.below(patterns.len() as u64) as usize];
    let at = random.below(60_000);
    let place = usize::try_from(at).expect("a small number");
    // A registry that says that it has what it has not is past help: these all say no, or send elsewhere.
    let statuses = [
        400, 401, 403, 404, 408, 413, 416, 429, 500, 502, 503, 504, 301, 307,
    ];
    let mut rule = Rule::on(on);
    match random.below(if lies { 18 } else { 16 }) {
        16 => rule.status = Some([200, 201, 204, 206][random.below(4) as usize]),
        17 => {
            rule.status = Some([200, 206][random.below(2) as usize]);
            let bodies = ["<html>", "{}", "null", "[]", "{\"token\":\"x\"}"];
            rule.body = Some(bodies[random.below(5) as usize].to_owned());
        }
        0..=3 => rule.status = Some(statuses[random.below(statuses.len() as u64) as usize]),
        4 => rule.cut = Some(at),
        5 => rule.cut_upload = Some(at),
        6 => rule.lose = true,
        7 => rule.hang = true,
        8 => rule.garbage = Some("HTTP/1.1 2OO OK\r\n\r\n".to_owned()),
        9 => rule.corrupt = Some(place % 400),
        10 => rule.truncate = Some(place),
        11 => rule.repeat = true,
        12 => rule.length = Some(at),
        13 => rule.drip = Some((1 + place / 4, 10)),
        14 => {
            let headers = [
                "Location",
                "Docker-Content-Digest",
                "Content-Type",
                "Range",
                "Content-Range",
                "OCI-Chunk-Min-Length",
                "Retry-After",
                "WWW-Authenticate",
                "Link",
            ];
            let name = headers[random.below(headers.len() as u64) as usize];
            let values = [
                "",
                "rubbish",
                "0-0",
                "99999999999999999999",
                "bytes 5-1/2",
                "//",
                "/v2/",
                "Bearer",
                "\"\\",
            ];
            rule = match random.below(2) {
                0 => rule.without(name),
                _ => rule.header(name, values[random.below(values.len() as u64) as usize]),
            };
        }
        _ => {
            rule.early = true;
            rule.status = Some(statuses[random.below(11) as usize]);
        }
    }
    rule.nth = u32::try_from(1 + random.below(4)).expect("a small number");
    rule.times = match random.below(8) {
        0 => None,
        other => Some(u32::try_from(1 + other % 3).expect("a small number")),
    };
    rule
}

/// Runs schedules on some threads, and reports how many ended well.
fn schedules(what: &str, run: impl Fn(u64) -> Result<(), RegistryError> + Sync) {
    let (next, fine) = (AtomicU64::new(1), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > SCHEDULES {
                        return;
                    }
                    let begin = Instant::now();
                    let result = run(seed);
                    let time = begin.elapsed();
                    assert!(time < LONGEST, "{what} {seed} took {time:?}");
                    match result {
                        Ok(()) => {
                            fine.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => check(what, seed, &error),
                    }
                }
            });
        }
    });
    let fine = fine.into_inner();
    // Neither all nor none: else the faults or the retries are not there.
    assert!(
        (SCHEDULES / 4..SCHEDULES).contains(&fine),
        "{what}: {fine} of {SCHEDULES} ended well"
    );
}

/// An error says where it happened and how to mend it, and tells no secret.
fn check(what: &str, seed: u64, error: &RegistryError) {
    let text = error.to_string();
    assert!(text.contains("127.0.0.1:"), "{what} {seed}: {text}");
    assert!(error.help().is_some(), "{what} {seed}: {text}");
    let all = format!("{text} {error:?}");
    assert!(
        !all.contains(PASSWORD) && !all.contains("opaque."),
        "{what} {seed}: {all}"
    );
    assert!(text.len() < 4000, "{what} {seed}: {text}");
}

/// A server with some faults, which is one of the registries of the wild.
fn server(random: &mut Random, patterns: &[&str], lies: bool) -> Server {
    let profile = Quirks::NAMES[random.below(Quirks::NAMES.len() as u64) as usize];
    let auth = match random.below(3) {
        0 => Auth::default(),
        1 => Auth::basic(USER, PASSWORD),
        _ => Auth::profile(profile, USER, PASSWORD),
    };
    let rules = (0..1 + random.below(3))
        .map(|_| fault(random, patterns, lies))
        .collect();
    let server = Server::start(Setup {
        // A lenient registry takes a manifest before its blobs: the client itself must keep the order.
        quirks: Quirks {
            lenient: true,
            rate: None,
            ..Quirks::profile(profile)
        },
        auth,
        rules,
        ..Setup::default()
    });
    server.make_repository("a");
    server
}

#[test]
fn pushes_under_random_faults() {
    let patterns = [
        "* *",
        "HEAD *",
        "POST *",
        "PUT *",
        "PUT *uploads*",
        "PUT *manifests*",
        "GET /token*",
        "PATCH *",
        "* /v2/a/blobs/*",
    ];
    schedules("push", |seed| {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let server = server(&mut random, &patterns, false);
        let image = image(seed, &[50_000, 3_000, 1]);
        let result = rig(&server).push(&server, "a:1", &image);
        server.check_tags();
        match result {
            Ok(_) => assert_holds(&server, "a:1", &image),
            Err(error) => {
                // What was pushed before the fault does no harm to a second try.
                server.heal();
                let again = rig(&server).push(&server, "a:1", &image);
                again.unwrap_or_else(|error| {
                    panic!("push {seed} again: {error}\n{}", server.story())
                });
                assert_holds(&server, "a:1", &image);
                return Err(error);
            }
        }
        Ok(())
    });
}

#[test]
fn pulls_under_random_faults() {
    let patterns = [
        "* *",
        "HEAD *",
        "GET *",
        "GET *manifests*",
        "GET *blobs*",
        "GET /token*",
    ];
    schedules("pull", |seed| {
        let mut random = Random(seed.wrapping_mul(0x6a09_e667_f3bc_c909) | 1);
        let server = server(&mut random, &patterns, true);
        let image = image(seed, &[50_000, 3_000, 1]);
        server.load("a", "1", &image);
        let rig = rig(&server);
        let result = rig.fetch(&server.reference("a:1"));
        for layer in &image.parts[0].layers {
            let health = rig.health(layer);
            assert_ne!(
                health,
                imgdecl::parts::store::Health::Damaged,
                "pull {seed}"
            );
        }
        match result {
            Ok(found) => {
                assert_eq!(
                    found.digest,
                    image.root().digest,
                    "pull {seed}\n{}",
                    server.story()
                );
                Ok(())
            }
            Err(error) => {
                server.heal();
                let again = self::rig(&server).fetch(&server.reference("a:1"));
                again.unwrap_or_else(|error| {
                    panic!("pull {seed} again: {error}\n{}", server.story())
                });
                Err(error)
            }
        }
    });
}
