//! Makes archives: sound ones, and ones with oddities, which are named.

use std::collections::BTreeSet;

use crate::support::Random;

/// What is odd in an archive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Odd {
    /// A number field holds what is no number.
    BadNumber,
    /// A checksum is wrong.
    BadChecksum,
    /// A PAX record is damaged.
    BadRecord,
    /// Two headers of one kind speak of one entry.
    RepeatedHeader,
    /// Two PAX headers speak of one entry, and give it two sizes.
    RepeatedSize,
    /// A header speaks of an entry, and then comes the end.
    HeaderAtEnd,
    /// Records for all entries say more than a comment.
    GlobalRecords,
    /// A name of GNU tar and one of PAX.
    TwoNames,
    /// A type that is not one of POSIX.
    OtherType,
    /// A volume label.
    Label,
    /// One block of zeros.
    LoneZeros,
    /// A file whose name ends in a slash.
    SlashOfFile,
    /// The archive ends too early.
    CutShort,
    /// A prefix in a header of V7.
    Prefix,
    /// A prefix in a header of GNU tar, where times should be.
    PrefixOfGnu,
    /// A sparse file whose map is wrong.
    BadSparse,
    /// A size of what has no content.
    Sized,
    /// An entry without a name.
    EmptyName,
    /// A sparse file in the form before PAX.
    OldSparse,
    /// A folder of V7.
    V7Folder,
    /// A time before 1970.
    EarlyTime,
    /// A comment for the whole archive, as git writes it.
    GlobalComment,
}

/// A header that is being made.
pub(super) struct Head(pub(super) [u8; 512]);

impl Head {
    pub(super) fn new(name: &str, flag: u8, size: usize) -> Self {
        let mut head = Self([0; 512]);
        head.put(0, name.as_bytes());
        head.put(100, b"0000644\0");
        head.put(108, b"0000000\0");
        head.put(116, b"0000000\0");
        head.put(124, format!("{size:011o}\0").as_bytes());
        head.put(136, b"00000001750\0");
        head.put(257, b"ustar\x0000");
        head.0[156] = flag;
        head
    }

    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn sum(mut self) -> Vec<u8> {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self.0.to_vec()
    }
}

pub(super) fn pad(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

pub(super) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

/// Makes a header that speaks of another one.
pub(super) fn about(flag: u8, body: &[u8]) -> Vec<u8> {
    let head = Head::new("././@about", flag, body.len());
    [head.sum(), pad(body.to_vec())].concat()
}

/// Makes an archive, and says what is odd in it.
pub(super) fn generate(random: &mut Random) -> (Vec<u8>, BTreeSet<Odd>) {
    let mut odds = BTreeSet::new();
    let mut bytes = Vec::new();
    // Every third archive is sound.
    let mut oddity = random.below(3);
    for number in 0..=random.below(4) {
        let is_odd = oddity > 0 && random.below(2) == 0;
        match is_odd {
            true => {
                oddity -= 1;
                odd(random, number, &mut bytes, &mut odds);
            }
            false => bytes.extend(sound(random, number, &mut odds)),
        }
    }
    match random.below(8) {
        0 if !bytes.is_empty() => {}
        1 => bytes.extend([vec![0; 1024], vec![b'x'; 512]].concat()),
        _ => bytes.extend([0; 1024]),
    }
    if oddity > 0 && random.below(12) == 0 && bytes.len() > 700 {
        odds.insert(Odd::CutShort);
        let end = 513 + random.below(bytes.len() as u64 - 513) as usize;
        bytes.truncate(end);
    }
    (bytes, odds)
}

fn name(random: &mut Random, number: u64) -> String {
    let folder = ["", "a/", "./", "a/b/"][random.below(4) as usize];
    format!("{folder}f{number}")
}

/// Makes a sound entry.
fn sound(random: &mut Random, number: u64, odds: &mut BTreeSet<Odd>) -> Vec<u8> {
    let name = name(random, number);
    let length = [0, 3, 512, 700][random.below(4) as usize];
    let body = random.bytes(length);
    let file = |name: &str, body: &[u8]| -> Vec<u8> {
        [Head::new(name, b'0', body.len()).sum(), pad(body.to_vec())].concat()
    };
    let link = |flag: u8, target: &str| {
        let mut head = Head::new(&name, flag, 0);
        head.put(157, target.as_bytes());
        head.sum()
    };
    let long = format!("{}/{name}", "long".repeat(30));
    match random.below(13) {
        0..4 => file(&name, &body),
        4 => Head::new(&format!("{name}/"), b'5', 0).sum(),
        5 => link(b'2', "../target"),
        6 => [file("zero", b"0"), link(b'1', "zero")].concat(),
        7 => [
            about(b'L', &[long.as_bytes(), b"\0"].concat()),
            file("cut", &body),
        ]
        .concat(),
        8 => [
            about(b'x', &record("path", long.as_bytes())),
            file("cut", &body),
        ]
        .concat(),
        9 => {
            // The size of PAX counts.
            let records = record("size", body.len().to_string().as_bytes());
            let head = Head::new(&name, b'0', 0).sum();
            [about(b'x', &records), head, pad(body)].concat()
        }
        10 => {
            let mut head = Head::new(&name, b'0', 0);
            // Base-256, and numbers with blanks.
            let mut size = [0; 12];
            size[0] = 0x80;
            size[10..].copy_from_slice(&(body.len() as u16).to_be_bytes());
            head.put(124, &size);
            head.put(108, b"   123 \0");
            [head.sum(), pad(body)].concat()
        }
        11 => {
            let records = [
                record("SCHILY.xattr.user.note", b"line1\nline2\n\0\xff"),
                record("comment", "é".as_bytes()),
                record("mtime", b"12.5"),
                record("size", b"1"),
                record("size", body.len().to_string().as_bytes()),
            ];
            [about(b'x', &records.concat()), file(&name, &body)].concat()
        }
        _ => sparse(random, &name, odds),
    }
}

/// Makes a sound sparse file in one of four forms: 4 bytes at 8, and 5 at 600, of 1,000.
fn sparse(random: &mut Random, name: &str, odds: &mut BTreeSet<Odd>) -> Vec<u8> {
    let data = b"datadata2";
    let common = [
        record("GNU.sparse.name", name.as_bytes()),
        record("GNU.sparse.size", b"1000"),
        record("GNU.sparse.numblocks", b"2"),
    ];
    let file = |body: &[u8]| -> Vec<u8> {
        let head = Head::new("GNUSparseFile.0/x", b'0', body.len());
        [head.sum(), pad(body.to_vec())].concat()
    };
    match random.below(4) {
        0 => {
            odds.insert(Odd::OldSparse);
            let mut head = Head::new(name, b'S', data.len());
            head.put(257, b"ustar  \0");
            for (at, number) in [(386, 8), (398, 4), (410, 600), (422, 5), (483, 1000)] {
                head.put(at, format!("{number:011o}\0").as_bytes());
            }
            [head.sum(), pad(data.to_vec())].concat()
        }
        1 => {
            let pieces = [
                ("offset", "8"),
                ("numbytes", "4"),
                ("offset", "600"),
                ("numbytes", "5"),
            ];
            let pieces = pieces
                .map(|(key, value)| record(&format!("GNU.sparse.{key}"), value.as_bytes()))
                .concat();
            // This form has no name of its own.
            let records = [&common[1][..], &common[2], &pieces].concat();
            let head = Head::new(name, b'0', data.len());
            [about(b'x', &records), head.sum(), pad(data.to_vec())].concat()
        }
        2 => {
            let map = record("GNU.sparse.map", b"8,4,600,5");
            [about(b'x', &[common.concat(), map].concat()), file(data)].concat()
        }
        _ => {
            let records = [
                record("GNU.sparse.major", b"1"),
                record("GNU.sparse.minor", b"0"),
                record("GNU.sparse.name", name.as_bytes()),
                record("GNU.sparse.realsize", b"1000"),
            ];
            let body = [pad(b"2\n8\n4\n600\n5\n".to_vec()), data.to_vec()].concat();
            [about(b'x', &records.concat()), file(&body)].concat()
        }
    }
}

/// Adds something odd.
fn odd(random: &mut Random, number: u64, bytes: &mut Vec<u8>, odds: &mut BTreeSet<Odd>) {
    let name = name(random, number);
    let hidden = Head::new(&format!("hidden{number}"), b'0', 0).sum();
    let file = || Head::new(&name, b'0', 0);
    let (odd, more) = match random.below(20) {
        0 => {
            let mut head = file();
            let (at, text) = [
                (100, b"+644\0"),
                (108, b"0o17\0"),
                (124, b"zzzz\0"),
                (136, b"-1 2\0"),
            ][random.below(4) as usize];
            head.put(at, text);
            (Odd::BadNumber, head.sum())
        }
        1 => {
            let mut block = file().sum();
            block[0] ^= 1;
            (Odd::BadChecksum, block)
        }
        2 => {
            let records: &[u8] = match random.below(4) {
                0 => b"7 path=a\n",
                1 => b"99 path=a\n",
                2 => b"13 size= 512\n",
                _ => b"10 path=\0\n",
            };
            (
                Odd::BadRecord,
                [about(b'x', records), file().sum()].concat(),
            )
        }
        3 => {
            let (flag, one, two) = match random.below(2) {
                0 => (b'L', b"one\0".to_vec(), b"two\0".to_vec()),
                _ => (b'x', record("path", b"one"), record("path", b"two")),
            };
            let all = [about(flag, &one), about(flag, &two), file().sum()];
            (Odd::RepeatedHeader, all.concat())
        }
        4 => {
            odds.insert(Odd::RepeatedHeader);
            let (one, two) = (record("size", b"512"), record("comment", b"x"));
            let all = [about(b'x', &one), about(b'x', &two), file().sum(), hidden];
            (Odd::RepeatedSize, all.concat())
        }
        5 => {
            let last = about(b'L', b"nothing\0");
            (Odd::HeaderAtEnd, [last, vec![0; 1024]].concat())
        }
        6 => {
            let records = [record("path", b"global"), record("mtime", b"7")];
            let records = about(b'g', &records.concat());
            (Odd::GlobalRecords, [records, file().sum()].concat())
        }
        7 => {
            let (gnu, pax) = (about(b'L', b"gnu\0"), about(b'x', &record("path", b"pax")));
            (Odd::TwoNames, [gnu, pax, file().sum()].concat())
        }
        8 => {
            let flag = b"ZXMDNa"[random.below(6) as usize];
            (Odd::OtherType, Head::new(&name, flag, 0).sum())
        }
        9 => {
            let mut head = Head::new("label", b'V', 0);
            head.put(257, b"ustar  \0");
            (Odd::Label, head.sum())
        }
        10 => (Odd::LoneZeros, vec![0; 512]),
        11 => {
            let flag = [b'0', b'7'][random.below(2) as usize];
            let body = match random.below(2) {
                0 => Vec::new(),
                _ => hidden,
            };
            let head = Head::new(&format!("{name}/"), flag, body.len());
            (Odd::SlashOfFile, [head.sum(), body].concat())
        }
        12 => {
            let mut head = Head::new(&format!("{name}/"), 0, 0);
            head.put(257, &[0; 8]);
            (Odd::V7Folder, head.sum())
        }
        13 => {
            let mut head = file();
            let (odd, magic) = match random.below(2) {
                0 => (Odd::PrefixOfGnu, *b"ustar  \0"),
                _ => (Odd::Prefix, [0; 8]),
            };
            head.put(257, &magic);
            head.put(345, b"prefix");
            (odd, head.sum())
        }
        14 => {
            let map: &[u8] = match random.below(3) {
                0 => b"8,4,2,5",
                1 => b"8,4,998,5",
                _ => b"8,4,600",
            };
            let records = [
                record("GNU.sparse.name", name.as_bytes()),
                record("GNU.sparse.size", b"1000"),
                record("GNU.sparse.numblocks", b"2"),
                record("GNU.sparse.map", map),
            ];
            let head = Head::new("GNUSparseFile.0/x", b'0', 9).sum();
            let all = [about(b'x', &records.concat()), head, pad(vec![b'd'; 9])];
            (Odd::BadSparse, all.concat())
        }
        15 => {
            let flag = b"123456"[random.below(6) as usize];
            let mut head = Head::new(&name, flag, 512);
            head.put(157, b"zero");
            (Odd::Sized, [head.sum(), hidden].concat())
        }
        16 => {
            // An empty number is 0 to all.
            let mut head = file();
            head.put(108, &[0; 16]);
            bytes.extend(head.sum());
            return;
        }
        17 => {
            let records = about(b'x', &record("mtime", b"-12.5"));
            (Odd::EarlyTime, [records, file().sum()].concat())
        }
        18 => {
            let records = about(b'g', &record("comment", b"0123456789"));
            (Odd::GlobalComment, [records, file().sum()].concat())
        }
        _ => (Odd::EmptyName, Head::new("", b'0', 0).sum()),
    };
    odds.insert(odd);
    bytes.extend(more);
}
