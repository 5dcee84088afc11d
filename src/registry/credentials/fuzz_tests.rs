//! Damaged auth files and answers of helpers: seeded, bounded mutations of good ones. Whatever comes, there is an answer
//! without a panic, and a message without a secret.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::file::{AuthFile, Entry};
use super::helper::{Answer, Ran, answer};

/// A secret, as it stands in the seeds.
const SECRET: &str = "hush-hush";

/// The same, in base64 behind a name.
const PACKED: &str = "dTpodXNoLWh1c2g=";

/// A generator of numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap() % end.max(1)
    }
}

/// Changes, removes, repeats or inserts a few bytes.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    const ODD: &[&str] = &[
        "\0", "\"", "{", "}", "[", ":", ",", "null", "7", "\\u0000", "/", "//", "é", "=", "\n",
    ];
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(12)).min(bytes.len());
        match random.below(5) {
            0 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.below(256) as u8;
                }
            }
            1 => drop(bytes.drain(at..end)),
            2 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            3 => bytes.truncate(at),
            _ => {
                let odd = ODD[random.below(ODD.len())];
                bytes.splice(at..at, odd.bytes());
            }
        }
    }
}

/// Calls `read` with mutations of `seed`. It returns what is told to people.
fn fuzz(seed: &str, read: impl Fn(&[u8]) -> Vec<String>) {
    for number in 0..4000 {
        let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ (number + 1));
        let mut bytes = seed.as_bytes().to_vec();
        mutate(&mut random, &mut bytes);
        for told in read(&bytes) {
            let damaged = String::from_utf8_lossy(&bytes);
            assert!(!told.contains(SECRET), "{told}\n{damaged}");
            assert!(!told.contains(PACKED), "{told}\n{damaged}");
        }
    }
}

#[test]
fn auth_files() {
    let seed = format!(
        r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{PACKED}"}},"a.example/ns/repo":{{"username":"u","password":"{SECRET}"}},"a.example":{{"identitytoken":"{SECRET}"}},"[::1]:5000":{{"registrytoken":"{SECRET}"}}}},"credHelpers":{{"a.example":"x"}},"credsStore":"y"}}"#
    );
    fuzz(&seed, |bytes| {
        let file = match AuthFile::parse(bytes) {
            Ok(file) => file,
            Err(why) => return vec![why],
        };
        let mut told = Vec::new();
        for host in ["docker.io", "a.example", "[::1]:5000", ""] {
            assert!(file.helpers(host).len() <= 2);
            for (_, entry) in file.entries(host, "ns/repo") {
                told.push(format!("{entry:?}"));
                if let Entry::Malformed(why) = entry {
                    told.push(why);
                }
            }
        }
        told
    });
}

#[test]
fn answers() {
    let good = format!(r#"{{"ServerURL":"a.example","Username":"<token>","Secret":"{SECRET}"}}"#);
    for code in [0, 1] {
        fuzz(&good, |bytes| {
            let ran = Ran {
                status: ExitStatus::from_raw(code << 8),
                stdout: bytes.to_vec(),
                stderr: Vec::new(),
            };
            let answer = answer("docker-credential-x", &ran);
            let mut told = vec![format!("{answer:?}")];
            if let Answer::Failed(why) = answer {
                told.push(why);
            }
            told
        });
    }
}
