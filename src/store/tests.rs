//! Tests of what any store must do: the same list for the folder and for the store in memory.

use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use tempfile::TempDir;

use super::*;

/// A store to test, and what the test does to it behind its back.
trait Subject: Sync {
    /// Makes an empty one.
    fn new() -> Self;
    fn records(&self) -> &dyn Records;
    fn blobs(&self) -> &dyn Blobs;
    /// Loses a blob.
    fn lose(&self, digest: &Digest);
    /// Changes the bytes of a blob, and nothing else that can be seen.
    fn rot(&self, digest: &Digest, change: &dyn Fn(&mut Vec<u8>));
    /// Changes the bytes of a record, as they are kept.
    fn rot_record(&self, key: &Digest, change: &dyn Fn(&mut Vec<u8>));
    /// Keeps the bytes of a record under another key.
    fn move_record(&self, from: &Digest, to: &Digest);
    /// Counts the blobs, and whatever was begun and not ended.
    fn count(&self) -> (usize, usize);
}

/// The folder, and where it is.
struct Folder {
    store: Store,
    _place: TempDir,
}

/// Changes bytes of a file and nothing else that can be seen.
pub(super) fn rot(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let before = std::fs::metadata(path).unwrap().modified().unwrap();
    let mode = std::fs::metadata(path).unwrap().permissions();
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::write(path, bytes).unwrap();
    let file = File::options().append(true).open(path).unwrap();
    file.set_modified(before).unwrap();
    std::fs::set_permissions(path, mode).unwrap();
}

fn files(folder: &Path) -> usize {
    gc::walk(folder).unwrap().len()
}

impl Subject for Folder {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        Self {
            store: Store::open(place.path()).unwrap(),
            _place: place,
        }
    }

    fn records(&self) -> &dyn Records {
        &self.store
    }

    fn blobs(&self) -> &dyn Blobs {
        &self.store
    }

    fn lose(&self, digest: &Digest) {
        std::fs::remove_file(self.store.blob_path(digest)).unwrap();
    }

    fn rot(&self, digest: &Digest, change: &dyn Fn(&mut Vec<u8>)) {
        rot(&self.store.blob_path(digest), change);
    }

    fn rot_record(&self, key: &Digest, change: &dyn Fn(&mut Vec<u8>)) {
        let path = self.store.path_by_key(RECORDS, key);
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    }

    fn move_record(&self, from: &Digest, to: &Digest) {
        let (from, to) = (
            self.store.path_by_key(RECORDS, from),
            self.store.path_by_key(RECORDS, to),
        );
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::rename(from, to).unwrap();
    }

    fn count(&self) -> (usize, usize) {
        (
            files(&self.store.root().join(BLOBS)),
            files(self.store.tmp()),
        )
    }
}

impl Subject for InMemory {
    fn new() -> Self {
        Self::default()
    }

    fn records(&self) -> &dyn Records {
        self
    }

    fn blobs(&self) -> &dyn Blobs {
        self
    }

    fn lose(&self, digest: &Digest) {
        self.all_blobs().remove(digest).unwrap();
    }

    fn rot(&self, digest: &Digest, change: &dyn Fn(&mut Vec<u8>)) {
        let mut blobs = self.all_blobs();
        let bytes = blobs.get_mut(digest).unwrap();
        let mut changed = bytes.to_vec();
        change(&mut changed);
        *bytes = changed.into();
    }

    fn rot_record(&self, key: &Digest, change: &dyn Fn(&mut Vec<u8>)) {
        change(self.all_records().get_mut(key).unwrap());
    }

    fn move_record(&self, from: &Digest, to: &Digest) {
        let mut records = self.all_records();
        let record = records.remove(from).unwrap();
        records.insert(*to, record);
    }

    fn count(&self) -> (usize, usize) {
        (self.all_blobs().len(), 0)
    }
}

/// Runs each of the tests over each of the stores.
macro_rules! contract {
    ($($test:ident,)*) => {
        mod folder {
            $(#[test] fn $test() { super::$test(&<super::Folder as super::Subject>::new()); })*
        }
        mod in_memory {
            $(#[test] fn $test() { super::$test(&<super::InMemory as super::Subject>::new()); })*
        }
    };
}

contract! {
    what_is_put_comes_back,
    what_is_absent_is_missing,
    a_wrong_size_is_refused_and_leaves_nothing,
    a_wrong_digest_is_refused_and_leaves_nothing,
    a_dropped_writer_leaves_nothing,
    damage_is_found_as_it_is_read,
    other_sizes_are_found_at_once,
    the_last_bytes_of_a_damaged_blob_never_come_out,
    what_is_damaged_is_mended_by_writing_it_again,
    what_is_lost_is_missing,
    many_are_checked_in_their_order,
    soundness_is_told_by_digest_and_by_place,
    a_blob_for_later_is_a_file,
    a_link_is_whole_or_not_made,
    nobody_vouches_for_what_is_no_copy,
    a_record_comes_back,
    a_damaged_record_is_none,
    a_record_of_another_key_or_version_is_none,
    many_records_come_in_their_order,
    writers_of_one_blob_do_not_meet,
    writers_of_one_key_leave_one_whole_record,
}

fn blob_of(bytes: &[u8]) -> Blob {
    Blob {
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
    }
}

fn what_is_put_comes_back(it: &impl Subject) {
    let long: Vec<u8> = (0..300_000u32).map(|it| it as u8).collect();
    for bytes in [&b""[..], b"hello", &long] {
        let blob = it.blobs().put_blob(bytes).unwrap();
        assert_eq!(blob, blob_of(bytes));
        assert_eq!(it.blobs().check(&blob), Health::Whole);
        assert_eq!(it.blobs().find(&blob.digest), Some(blob));
        assert_eq!(it.blobs().read_blob(&blob).unwrap(), bytes);
        // In pieces, and again.
        let mut reader = it.blobs().open_blob(&blob).unwrap();
        let (mut found, mut piece) = (Vec::new(), [0; 1000]);
        loop {
            match reader.read(&mut piece).unwrap() {
                0 => break,
                count => found.extend_from_slice(&piece[..count]),
            }
        }
        assert_eq!(found, bytes);
        assert_eq!(it.blobs().put_blob(bytes).unwrap(), blob);
    }
    let mut writer = it.blobs().writer().unwrap();
    writer.write_all(b"hel").unwrap();
    writer.write_all(b"lo").unwrap();
    assert_eq!(writer.complete().unwrap(), blob_of(b"hello"));
    let expected = blob_of(b"abc");
    let mut writer = it.blobs().writer().unwrap();
    writer.write_all(b"abc").unwrap();
    let found = writer.complete_verified_as(&expected, "x").unwrap();
    assert_eq!(found, expected);
    assert_eq!(it.count(), (4, 0));
}

fn what_is_absent_is_missing(it: &impl Subject) {
    let blob = blob_of(b"absent");
    assert_eq!(it.blobs().check(&blob), Health::Missing);
    assert_eq!(it.blobs().find(&blob.digest), None);
    assert!(!it.blobs().sound(&blob.digest).unwrap());
    let is_absent = |error: StoreError| match error {
        StoreError::Io { doing, source, .. } => {
            doing == "read" && source.kind() == io::ErrorKind::NotFound
        }
        _ => false,
    };
    assert!(is_absent(it.blobs().open_blob(&blob).err().unwrap()));
    assert!(is_absent(it.blobs().read_blob(&blob).unwrap_err()));
    let later = it.blobs().later(&blob.digest);
    assert_eq!(later.open().unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(later.damage().is_none());
    assert!(!it.blobs().local_path(&blob.digest).exists());
    assert_eq!(it.records().record(&blob.digest).unwrap(), None);
}

fn write(it: &impl Subject, bytes: &[u8], expected: &Blob) -> StoreError {
    let mut writer = it.blobs().writer().unwrap();
    writer.write_all(bytes).unwrap();
    writer.complete_verified_as(expected, "x").unwrap_err()
}

fn a_wrong_size_is_refused_and_leaves_nothing(it: &impl Subject) {
    let expected = blob_of(b"abc");
    for bytes in [&b""[..], b"ab", b"abcd"] {
        let error = write(it, bytes, &expected);
        assert!(matches!(error, StoreError::Size { expected: 3, .. }));
        assert_eq!(it.blobs().check(&expected), Health::Missing);
        assert_eq!(it.blobs().check(&blob_of(bytes)), Health::Missing);
    }
    assert_eq!(it.count(), (0, 0));
}

fn a_wrong_digest_is_refused_and_leaves_nothing(it: &impl Subject) {
    let expected = blob_of(b"abc");
    let error = write(it, b"abd", &expected);
    assert_eq!(
        error.to_string(),
        format!(
            "x has the digest {} instead of {}",
            Digest::of(b"abd"),
            expected.digest
        )
    );
    assert_eq!(it.blobs().check(&expected), Health::Missing);
    assert_eq!(it.count(), (0, 0));
}

fn a_dropped_writer_leaves_nothing(it: &impl Subject) {
    let mut writer = it.blobs().writer().unwrap();
    writer.write_all(b"abc").unwrap();
    writer.flush().unwrap();
    assert_eq!(it.blobs().check(&blob_of(b"abc")), Health::Missing);
    drop(writer);
    assert_eq!(it.blobs().check(&blob_of(b"abc")), Health::Missing);
    assert_eq!(it.count(), (0, 0));
}

fn damage_is_found_as_it_is_read(it: &impl Subject) {
    let blob = it.blobs().put_blob(b"hello").unwrap();
    it.rot(&blob.digest, &|bytes| bytes[0] = b'H');
    let error = it.blobs().read_blob(&blob).unwrap_err();
    let StoreError::Damaged(damage) = error else {
        panic!("{error}")
    };
    assert_eq!(damage.digest, blob.digest);
    // Whoever copies finds it in the error.
    let mut source = it.blobs().open_blob(&blob);
    let error = match &mut source {
        Ok(reader) => io::copy(reader, &mut io::sink()).unwrap_err(),
        Err(_) => source.err().unwrap().into(),
    };
    assert_eq!(Damage::of(&error), Some(&damage));
    // From now on nobody takes it for whole.
    assert_eq!(it.blobs().check(&blob), Health::Damaged);
    assert_eq!(it.blobs().find(&blob.digest), None);
    assert_eq!(it.blobs().later(&blob.digest).damage(), Some(damage));
}

fn other_sizes_are_found_at_once(it: &impl Subject) {
    let blob = it.blobs().put_blob(b"hello").unwrap();
    it.rot(&blob.digest, &|bytes| bytes.push(b'!'));
    assert_eq!(it.blobs().check(&blob), Health::Damaged);
    assert!(matches!(
        it.blobs().open_blob(&blob),
        Err(StoreError::Damaged(_))
    ));
}

fn the_last_bytes_of_a_damaged_blob_never_come_out(it: &impl Subject) {
    let bytes: Vec<u8> = (0..100_000u32).map(|it| it as u8).collect();
    let blob = it.blobs().put_blob(&bytes).unwrap();
    for at in [0, 50_000, 99_999] {
        it.rot(&blob.digest, &|bytes| bytes[at] ^= 1);
        let mut reader = it.blobs().open_blob(&blob).unwrap();
        // Whoever counts, and stops where the size is reached, has not got it either.
        let (mut got, mut piece) = (0, [0; 4096]);
        let error = loop {
            match reader.read(&mut piece) {
                Ok(count) => got += count as u64,
                Err(error) => break error,
            }
            assert!(got < blob.size);
        };
        assert_eq!(Damage::of(&error).unwrap().digest, blob.digest);
        assert_eq!(it.blobs().put_blob(&bytes).unwrap(), blob);
        assert_eq!(it.blobs().read_blob(&blob).unwrap(), bytes);
    }
}

fn what_is_damaged_is_mended_by_writing_it_again(it: &impl Subject) {
    let blob = it.blobs().put_blob(b"hello").unwrap();
    it.rot(&blob.digest, &|bytes| bytes[0] = b'H');
    assert!(it.blobs().read_blob(&blob).is_err());
    let mut writer = it.blobs().writer().unwrap();
    writer.write_all(b"hello").unwrap();
    writer.complete_verified_as(&blob, "x").unwrap();
    assert_eq!(it.blobs().check(&blob), Health::Whole);
    assert!(it.blobs().sound(&blob.digest).unwrap());
    assert_eq!(it.blobs().read_blob(&blob).unwrap(), b"hello");
    assert_eq!(it.count(), (1, 0));
}

fn what_is_lost_is_missing(it: &impl Subject) {
    let blob = it.blobs().put_blob(b"hello").unwrap();
    it.lose(&blob.digest);
    assert_eq!(it.blobs().check(&blob), Health::Missing);
    assert!(!it.blobs().sound(&blob.digest).unwrap());
    assert!(it.blobs().open_blob(&blob).is_err());
    it.blobs().put_blob(b"hello").unwrap();
    assert_eq!(it.blobs().read_blob(&blob).unwrap(), b"hello");
}

fn many_are_checked_in_their_order(it: &impl Subject) {
    let [a, b] = [b"aa", b"bb"].map(|bytes| it.blobs().put_blob(bytes).unwrap());
    it.rot(&b.digest, &|bytes| bytes.truncate(1));
    let absent = blob_of(b"absent");
    let larger = Blob { size: 9, ..a };
    assert_eq!(
        it.blobs().check_all(&[b, a, absent, a, larger]),
        [
            Health::Damaged,
            Health::Whole,
            Health::Missing,
            Health::Whole,
            Health::Damaged
        ]
    );
    assert_eq!(it.blobs().check_all(&[]), []);
}

fn soundness_is_told_by_digest_and_by_place(it: &impl Subject) {
    let blob = it.blobs().put_blob(b"hello").unwrap();
    assert!(it.blobs().sound(&blob.digest).unwrap());
    let path = it.blobs().local_path(&blob.digest);
    assert_eq!(std::fs::read(&path).unwrap(), b"hello");
    assert!(it.blobs().sound_at(&path).unwrap());
    // A path that ends in a digest need not be a blob's.
    let elsewhere = Path::new("/elsewhere").join(blob.digest.hex());
    assert!(!it.blobs().sound_at(&elsewhere).unwrap());
    assert!(!it.blobs().sound_at(Path::new("/")).unwrap());
    it.lose(&blob.digest);
    assert!(!it.blobs().sound(&blob.digest).unwrap());
}

fn a_blob_for_later_is_a_file(it: &impl Subject) {
    let blob = it.blobs().put_blob(b"hello").unwrap();
    let later = it.blobs().later(&blob.digest);
    let (one, other) = (later.open().unwrap(), later.open().unwrap());
    let mut bytes = [0; 2];
    one.read_exact_at(&mut bytes, 3).unwrap();
    assert_eq!(&bytes, b"lo");
    let mut text = String::new();
    (&other).read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    assert!(later.damage().is_none());
    it.rot(&blob.digest, &|bytes| bytes.reverse());
    let damage = it.blobs().later(&blob.digest).damage().unwrap();
    assert_eq!(damage.digest, blob.digest);
    assert!(!damage.place.is_empty());
}

fn a_link_is_whole_or_not_made(it: &impl Subject) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy");
    assert!(it.blobs().link_blob(&blob_of(b"absent"), &path).is_err());
    let blob = it.blobs().put_blob(b"hello").unwrap();
    match it.blobs().link_blob(&blob, &path).unwrap() {
        true => assert_eq!(std::fs::read(&path).unwrap(), b"hello"),
        false => assert!(!path.exists()),
    }
    let other = folder.path().join("other");
    it.rot(&blob.digest, &|bytes| bytes.push(b'!'));
    assert!(it.blobs().link_blob(&blob, &other).is_err());
    assert!(!other.exists());
}

fn nobody_vouches_for_what_is_no_copy(it: &impl Subject) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let blob = it.blobs().put_blob(b"hello").unwrap();
    assert!(!it.blobs().vouches_for(&blob, &path));
    std::fs::write(&path, b"hullo").unwrap();
    assert!(!it.blobs().vouches_for(&blob, &path));
    assert!(!it.blobs().vouches_for(&blob_of(b"hullo"), &path));
}

fn record(number: u64) -> Record {
    let blob = blob_of(&number.to_le_bytes());
    Record::new(serde_json::json!({ "number": number }), vec![blob])
}

fn a_record_comes_back(it: &impl Subject) {
    let key = Digest::of(b"key");
    it.records().put_record(&key, &record(1)).unwrap();
    assert_eq!(it.records().record(&key).unwrap(), Some(record(1)));
    // The bytes that it names need not be there.
    assert_eq!(it.blobs().check(&record(1).blobs[0]), Health::Missing);
    it.records().put_record(&key, &record(2)).unwrap();
    assert_eq!(it.records().record(&key).unwrap(), Some(record(2)));
    assert_eq!(it.records().record(&Digest::of(b"other")).unwrap(), None);
    // Records and blobs do not mix.
    assert_eq!(it.blobs().find(&key), None);
}

fn a_damaged_record_is_none(it: &impl Subject) {
    let key = Digest::of(b"key");
    it.records().put_record(&key, &record(1)).unwrap();
    let mut at = 0;
    let mut is_end = false;
    while !is_end {
        let end = std::cell::Cell::new(false);
        it.rot_record(&key, &|bytes| match bytes.get_mut(at) {
            Some(byte) => *byte ^= 1,
            None => end.set(true),
        });
        is_end = end.get();
        let found = it.records().record(&key).unwrap();
        assert_eq!(found.is_some(), is_end, "byte {at}");
        it.records().put_record(&key, &record(1)).unwrap();
        at += 1;
    }
    assert!(at > 100);
    it.rot_record(&key, &|bytes| bytes.clear());
    assert_eq!(it.records().record(&key).unwrap(), None);
}

fn a_record_of_another_key_or_version_is_none(it: &impl Subject) {
    let (key, other) = (Digest::of(b"key"), Digest::of(b"other"));
    it.records().put_record(&key, &record(1)).unwrap();
    it.move_record(&key, &other);
    assert_eq!(it.records().record(&key).unwrap(), None);
    assert_eq!(it.records().record(&other).unwrap(), None);
    let newer = record(1).of_later_version();
    it.records().put_record(&key, &newer).unwrap();
    assert_eq!(it.records().record(&key).unwrap(), None);
    // It is replaced as any other.
    it.records().put_record(&key, &record(3)).unwrap();
    assert_eq!(it.records().record(&key).unwrap(), Some(record(3)));
}

fn many_records_come_in_their_order(it: &impl Subject) {
    let keys: Vec<Digest> = (0..5).map(|number: u8| Digest::of(&[number])).collect();
    for number in [0, 1, 3] {
        let record = record(number as u64);
        it.records().put_record(&keys[number], &record).unwrap();
    }
    it.rot_record(&keys[1], &|bytes| bytes.truncate(9));
    let wanted = [keys[3], keys[0], keys[1], keys[4], keys[3]];
    assert_eq!(
        it.records().records(&wanted).unwrap(),
        [
            Some(record(3)),
            Some(record(0)),
            None,
            None,
            Some(record(3))
        ]
    );
    assert_eq!(it.records().records(&[]).unwrap(), []);
}

fn writers_of_one_blob_do_not_meet(it: &impl Subject) {
    let bytes = vec![7; 100_000];
    let blob = blob_of(&bytes);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let mut writer = it.blobs().writer().unwrap();
                    bytes.chunks(9_999).for_each(|piece| {
                        writer.write_all(piece).unwrap();
                        // There is nothing, or all of it.
                        if it.blobs().check(&blob) != Health::Missing {
                            assert_eq!(it.blobs().read_blob(&blob).unwrap(), bytes);
                        }
                    });
                    writer.complete_verified_as(&blob, "x").unwrap();
                    assert_eq!(it.blobs().check(&blob), Health::Whole);
                }
            });
        }
    });
    assert_eq!(it.count(), (1, 0));
}

fn writers_of_one_key_leave_one_whole_record(it: &impl Subject) {
    let key = Digest::of(b"key");
    it.records().put_record(&key, &record(0)).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            scope.spawn(move || {
                for number in 0..50 {
                    let record = record(writer * 100 + number);
                    it.records().put_record(&key, &record).unwrap();
                    assert!(it.records().record(&key).unwrap().is_some());
                }
            });
        }
    });
    let last = it.records().record(&key).unwrap().unwrap();
    let last: Vec<u64> = (0..4)
        .map(|writer| writer * 100 + 49)
        .filter(|number| last == record(*number))
        .collect();
    assert_eq!(last.len(), 1);
}
