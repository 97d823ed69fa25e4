use std::sync::Mutex;

use super::*;

/// Files in memory, and what was read of them.
#[derive(Default)]
pub(in crate::dataset::archives) struct InMemory {
    pub(in crate::dataset::archives) files: Vec<(String, Vec<u8>)>,
    pub(in crate::dataset::archives) reads: Mutex<Vec<Range<u64>>>,
}

impl InMemory {
    pub(in crate::dataset::archives) fn one(archive: Vec<u8>) -> InMemory {
        InMemory { files: vec![("a.tar".to_owned(), archive)], ..InMemory::default() }
    }
}

impl Files for InMemory {
    fn list(&self) -> Result<Vec<FileEntry>> {
        let entry = |(path, bytes): &(String, Vec<u8>)| FileEntry {
            path: path.clone(),
            size_bytes: bytes.len() as u64,
        };
        Ok(self.files.iter().map(entry).collect())
    }

    fn read(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        self.reads.lock().unwrap().push(range.clone());
        let (_, bytes) = self.files.iter().find(|(name, _)| name == path).unwrap();
        let part = bytes.get(range.start as usize..range.end as usize);
        part.map(Bytes::copy_from_slice).ok_or_else(|| Error::data("past the end"))
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

/// A header with its sum, whose size is written so.
fn header(name: &[u8], kind: u8, size: &[u8]) -> Vec<u8> {
    let mut header = vec![0; BLOCK as usize];
    header[..name.len()].copy_from_slice(name);
    header[124..124 + size.len()].copy_from_slice(size);
    header[148..156].fill(b' ');
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    summed(header)
}

pub(in crate::dataset::archives) fn summed(mut header: Vec<u8>) -> Vec<u8> {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// A member of any kind, with what pads it.
pub(in crate::dataset::archives) fn member(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(name.as_bytes(), kind, format!("{:011o}\0", content.len()).as_bytes());
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
    bytes
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let record = |(key, value): &(&str, &str)| {
        let rest = format!(" {key}={value}\n");
        let length = (rest.len()..).find(|&l| l == rest.len() + l.to_string().len()).unwrap();
        format!("{length}{rest}")
    };
    records.iter().map(record).collect::<String>().into_bytes()
}

/// Members, and an end.
pub(in crate::dataset::archives) fn ended(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 2 * BLOCK as usize]].concat()
}

fn listed(archive: Vec<u8>) -> Result<Vec<(String, Range<u64>)>> {
    let files = InMemory::one(archive);
    let entry = &files.list()?[0];
    let mut members = Members::new(&files, entry);
    let mut all = Vec::new();
    while let Some(Member { name, bytes }) = members.next()? {
        all.push((name, bytes));
    }
    Ok(all)
}

#[track_caller]
fn check(members: &[Vec<u8>], expect: &[(&str, Range<u64>)]) {
    let expect: Vec<_> = expect.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
    assert_eq!(listed(ended(members)).unwrap(), expect);
}

#[track_caller]
fn refused(archive: Vec<u8>, part: &str) {
    let error = listed(archive).unwrap_err();
    assert_eq!(error.kind(), soup_core::ErrorKind::Data);
    assert!(error.chain().contains(part), "{}", error.chain());
}

#[test]
fn members_are_where_their_headers_say() {
    check(&[], &[]);
    check(
        &[member("a.cls", b'0', b"1"), member("a.jpg", b'0', &[7; 513]), member("b", b'\0', b"")],
        &[("a.cls", 512..513), ("a.jpg", 1536..2049), ("b", 3072..3072)],
    );
    // Folders, as new and as old writers tell of them.
    check(
        &[member("d/", b'5', b""), member("e/", b'\0', b""), member("d/a", b'7', b"x")],
        &[("d/a", 1536..1537)],
    );
    // A lone block of zeros is an end, too.
    let one = [member("a", b'0', b"x"), vec![0; 512]].concat();
    assert_eq!(listed(one).unwrap().len(), 1);
}

#[test]
fn names_may_be_longer_than_their_field() {
    let long = "é/".repeat(200) + "a.png";
    let gnu = member("././@LongLink", b'L', format!("{long}\0").as_bytes());
    check(&[gnu, member("cut", b'0', b"x")], &[(&long, 512 * 4..512 * 4 + 1)]);
    let records = pax(&[("mtime", "1.5"), ("path", &long), ("SCHILY.xattr.user.a", "\u{1}=\n")]);
    check(
        &[member("PaxHeader/a", b'x', &records), member("cut", b'0', b"x")],
        &[(&long, 512 * 4..512 * 4 + 1)],
    );
    let mut prefixed = header(b"a.png", b'0', b"00000000000\0");
    prefixed[345..352].copy_from_slice(b"folders");
    check(&[summed(prefixed.clone())], &[("folders/a.png", 512..512)]);
    // In GNU's own headers there is something else.
    prefixed[257..265].copy_from_slice(b"ustar  \0");
    check(&[summed(prefixed)], &[("a.png", 512..512)]);
    let comment = member("pax_global_header", b'g', &pax(&[("comment", "of all")]));
    check(&[comment, member("a", b'0', b"")], &[("a", 1536..1536)]);
}

#[test]
fn sizes_may_be_written_in_bytes_and_by_pax() {
    let mut size = [0; 12];
    (size[0], size[11]) = (0x80, 3);
    let large = |size: &[u8]| [header(b"a", b'0', size), vec![7; 512]].concat();
    check(&[large(&size)], &[("a", 512..515)]);
    check(&[large(b"  3 \0")], &[("a", 512..515)]);
    let by_pax = [member("x", b'x', &pax(&[("size", "5")])), large(b"00000000000\0")];
    check(&by_pax, &[("a", 1536..1541)]);
}

#[test]
fn what_is_no_plain_file_is_refused_by_name() {
    for (kind, part) in [
        (b'1', "member \"odd.jpg\" at byte 512: it is a hard link"),
        (b'2', "a symbolic link"),
        (b'3', "a device"),
        (b'4', "a device"),
        (b'6', "a FIFO"),
        (b'K', "a link with a long name"),
        (b'S', "a sparse file"),
        (b'M', "in another archive"),
        (b'V', "the name of a volume"),
        (b'?', "of type '?', which is not known"),
    ] {
        refused(ended(&[member("a", b'0', b""), member("odd.jpg", kind, b"")]), part);
    }
    let sparse = member("x", b'x', &pax(&[("GNU.sparse.major", "1")]));
    refused(ended(&[sparse, member("a", b'0', b"")]), "a sparse file");
    let all = |key| member("g", b'g', &pax(&[(key, "1")]));
    refused(ended(&[all("path"), member("a", b'0', b"")]), "give all members one path");
    refused(ended(&[all("size"), member("a", b'0', b"")]), "give all members one size");
    refused(ended(&[summed(header(b"\xff", b'0', b"0"))]), "its name is not UTF-8");
}

#[test]
fn what_is_cut_off_or_goes_on_is_refused() {
    let whole = ended(&[member("a.jpg", b'0', &[7; 700])]);
    for (length, part) in [
        (0, "it has no end"),
        (100, "cut off within a header"),
        (512, "member \"a.jpg\" at byte 0: it is cut off: 700 bytes, of which 0 are there"),
        (1211, "of which 699 are there"),
        (1212, "it has no end"),
        (1536, "it has no end"),
        (1600, "cut off within a header"),
    ] {
        refused(whole[..length].to_vec(), part);
    }
    assert_eq!(listed(whole[..2048].to_vec()).unwrap().len(), 1);
    refused([whole.clone(), whole.clone()].concat(), "goes on after its end at byte 1536");
    // GNU's writer fills its records up, which may be long.
    let far = [whole.clone(), vec![0; 300 << 10], whole.clone()].concat();
    refused(far, "goes on after its end at byte 1536");
    assert_eq!(listed([whole.clone(), vec![0; 300 << 10]].concat()).unwrap().len(), 1);
    refused([whole.clone(), vec![0; 17 << 20]].concat(), "goes on after its end at byte 1536");
    refused(vec![b'x'; 1024], "a header at byte 0 is none: it is no tar file");
    let mut damaged = whole;
    damaged[3] ^= 1;
    refused(damaged, "or damaged");
    refused(ended(&[member("x", b'x', &pax(&[("path", "p")]))]), "ends where a member should be");
}

/// Old writers told folders by their names: what is said of one is not of the next member, and what is in it no header.
#[test]
fn folders_of_old_writers_are_passed_over() {
    let size = member("x", b'x', &pax(&[("size", "700")]));
    let folder = member("folder/", b'0', &[b'x'; 700]);
    let members = listed(ended(&[size, folder.clone(), member("a.cls", b'0', b"3")])).unwrap();
    assert_eq!(members.iter().map(|(_, bytes)| bytes.end - bytes.start).collect::<Vec<_>>(), [1]);
    assert_eq!(listed(ended(&[folder, member("a.cls", b'0', b"3")])).unwrap().len(), 1);
}

#[test]
fn hostile_headers_end_soon() {
    let with_size = |size: &[u8]| ended(&[header(b"a.jpg", b'0', size)]);
    refused(with_size(b"77777777777\0"), "8589934591 bytes, of which");
    refused(with_size(&[0xff; 12]), "its size is no number");
    refused(
        with_size(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        "it is cut off: 18446744073709551615",
    );
    refused(with_size(&[0x81; 12]), "its size is no number");
    refused(with_size(b"-1\0"), "its size is no number");
    refused(with_size(b"9\0"), "its size is no number");
    let sized = |kind, size: &[u8]| ended(&[header(b"x", kind, size), vec![0; 512]]);
    refused(sized(b'x', b"00010000000\0"), "a description of 2097152 bytes");
    refused(sized(b'L', b"77777777777\0"), "a description of 8589934591 bytes");
    for records in
        ["x", "5 a=", "99999999999999999999 a=b\n", "7 a=bb", "1 ", "0 a=b\n", "9 size=-1\n", "9 ab=cde\n0"]
    {
        let part = if records.contains("size") { "in PAX records is no number" } else { "not understood" };
        let records = if records.contains("size") { "11 size=-1\n" } else { records };
        refused(ended(&[member("x", b'x', records.as_bytes()), member("a", b'0', b"")]), part);
    }
}

#[test]
fn of_large_members_nothing_is_read() {
    let large = vec![7; 1 << 20];
    let files = InMemory::one(ended(&[
        member("a.cls", b'0', b"1"),
        member("a.jpg", b'0', &large),
        member("b.cls", b'0', b"1"),
        member("b.jpg", b'0', &large),
    ]));
    let entry = &files.list().unwrap()[0];
    let mut members = Members::new(&files, entry);
    while members.next().unwrap().is_some() {}
    let reads = files.reads.lock().unwrap();
    let bytes: u64 = reads.iter().map(|range| range.end - range.start).sum();
    assert!(reads.len() == 3 && bytes <= 3 * WINDOW_BYTES, "{reads:?}");
}

/// To ask once more would cost more than what lies between their headers.
#[test]
fn members_that_are_not_large_are_read_over() {
    let image = vec![7; 110 << 10];
    let members = (0..100).map(|nth| member(&format!("{nth:03}.jpg"), b'0', &image));
    let files = InMemory::one(ended(&members.collect::<Vec<_>>()));
    let entry = &files.list().unwrap()[0];
    let mut members = Members::new(&files, entry);
    while members.next().unwrap().is_some() {}
    let reads = files.reads.lock().unwrap();
    assert!(reads.len() <= 4, "{reads:?}");
}

/// A file that is said to have as many bytes as a server can say: zeros behind those that there are.
struct Endless(Vec<u8>);

impl Files for Endless {
    fn list(&self) -> Result<Vec<FileEntry>> {
        Ok(vec![FileEntry { path: "a.tar".to_owned(), size_bytes: u64::MAX - 2 }])
    }

    fn read(&self, _: &str, range: Range<u64>) -> Result<Bytes> {
        Ok((range.start..range.end).map(|at| self.0.get(at as usize).copied().unwrap_or_default()).collect())
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

#[test]
fn a_member_that_ends_where_numbers_do_leads_to_no_other() {
    let size = (u64::MAX - 2 - 3 * BLOCK).to_string();
    let described = member("pax", b'x', &pax(&[("size", &size)]));
    let files = Endless([described, member("a.jpg", b'0', b"")].concat());
    let entry = &files.list().unwrap()[0];
    let mut members = Members::new(&files, entry);
    assert_eq!(members.next().unwrap().unwrap().bytes, 3 * BLOCK..u64::MAX - 2);
    let error = members.next().unwrap_err().chain();
    assert!(error.contains("it is cut off"), "{error}");
}
