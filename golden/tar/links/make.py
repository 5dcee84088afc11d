import io, tarfile

with tarfile.open("links.tar", "w", format=tarfile.PAX_FORMAT) as tar:
    def add(name, content=b"", **fields):
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        for key, value in fields.items():
            setattr(entry, key, value)
        tar.addfile(entry, io.BytesIO(content))

    add("./t", type=tarfile.DIRTYPE, mode=0o1777)
    add("t/z", b"first", mode=0o4711)
    add("t/z", b"last", mode=0o640, mtime=5)
    add("t/a-link", type=tarfile.LNKTYPE, linkname="t/z")
    add("t/b-link", type=tarfile.LNKTYPE, linkname="./t/a-link")
    add("t/soft", type=tarfile.SYMTYPE, linkname="../elsewhere", uid=9)
    add("t/x", b"x", pax_headers={"SCHILY.xattr.user.b": "2", "SCHILY.xattr.user.a": "1", "SCHILY.xattr.security.selinux": "no", "atime": "1.5", "comment": "no"})
    add("t/" + "long/" * 40 + "name", b"long", uid=3000000)
    add("t/\u00e9", "\u00e9".encode())
