//! Writes the archive that a wheel is: members as they are, in order, with one time and two modes (APPNOTE 4.3).

use std::fmt::Write as _;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libdeflater::Crc;

use crate::oci::Digest;

/// A file of the archive.
pub(crate) struct Member {
    /// Its path.
    pub(crate) path: String,
    /// Whether it may be executed.
    pub(crate) executable: bool,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

/// Writes the archive of a wheel, with the RECORD that its `stem` needs. `next` gives the files, in the order of their paths.
///
/// # Errors
/// When `next` or `out` fails; when it has more files or bytes than an archive without long numbers.
pub(crate) fn archive<E: From<io::Error>>(
    stem: &str,
    mut next: impl FnMut() -> Result<Option<Member>, E>,
    mut out: impl Write,
) -> Result<(), E> {
    let (mut at, mut count) = (0_u64, 0_u64);
    let mut directory = Vec::new();
    let mut record = String::new();
    let mut put = |member: &Member| -> io::Result<()> {
        let mut crc = Crc::new();
        crc.update(&member.bytes);
        let size = short(member.bytes.len() as u64)?;
        let name = member.path.as_bytes();
        let length = u16::try_from(name.len()).map_err(|_| too_large())?;
        let mut common = Vec::new();
        common.extend(20_u16.to_le_bytes());
        common.extend(0x800_u16.to_le_bytes()); // names are UTF-8
        common.extend(0_u16.to_le_bytes()); // stored
        common.extend([0, 0, 0x21, 0]); // 1980-01-01
        common.extend(crc.sum().to_le_bytes());
        common.extend(size.to_le_bytes());
        common.extend(size.to_le_bytes());
        common.extend(length.to_le_bytes());
        common.extend(0_u16.to_le_bytes());
        out.write_all(b"PK\x03\x04")?;
        out.write_all(&common)?;
        out.write_all(name)?;
        out.write_all(&member.bytes)?;
        directory.extend(b"PK\x01\x02");
        directory.extend([20, 3]); // made by Unix
        directory.extend(&common);
        directory.extend([0; 6]);
        let mode: u32 = if member.executable {
            0o100_755
        } else {
            0o100_644
        };
        directory.extend((mode << 16).to_le_bytes());
        directory.extend(short(at)?.to_le_bytes());
        directory.extend(name);
        at += (4 + common.len() + name.len()) as u64 + u64::from(size);
        count += 1;
        Ok(())
    };
    while let Some(member) = next()? {
        put(&member)?;
        let hash = URL_SAFE_NO_PAD.encode(Digest::of(&member.bytes).bytes());
        let path = match member.path.contains(['"', ',', '\n', '\r']) {
            true => format!("\"{}\"", member.path.replace('"', "\"\"")),
            false => member.path,
        };
        let _ = writeln!(record, "{path},sha256={hash},{}", member.bytes.len());
    }
    let path = format!("{stem}.dist-info/RECORD");
    let _ = writeln!(record, "{path},,");
    put(&Member {
        path,
        executable: false,
        bytes: record.into_bytes(),
    })?;
    let number = u16::try_from(count).ok().filter(|it| *it < u16::MAX);
    let number = number.ok_or_else(too_large)?;
    let mut end = Vec::new();
    end.extend(b"PK\x05\x06\0\0\0\0");
    end.extend(number.to_le_bytes());
    end.extend(number.to_le_bytes());
    end.extend(short(directory.len() as u64)?.to_le_bytes());
    end.extend(short(at)?.to_le_bytes());
    end.extend(0_u16.to_le_bytes());
    out.write_all(&directory)?;
    out.write_all(&end)?;
    Ok(())
}

/// Returns a number that needs no long field.
fn short(number: u64) -> io::Result<u32> {
    let found = u32::try_from(number).ok().filter(|it| *it < u32::MAX);
    found.ok_or_else(too_large)
}

fn too_large() -> io::Error {
    io::Error::other("a wheel of a project has at most 4 GiB and 65,534 files")
}
