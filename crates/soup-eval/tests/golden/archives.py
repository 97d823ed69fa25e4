"""Makes archives/: five labelled pictures in tar files, as programs write such, by the package webdataset (1.0.2) and Python's tarfile.

    pip install webdataset pillow && python archives.py

    numbers.tar, keys.tar, names.tar  of webdataset's TarWriter: labels as .cls, in .json, as .txt
    ustar.tar, pax.tar, gnu.tar       of tarfile, in folders whose names are long, with what such archives have besides
"""

import io
import pathlib
import tarfile

import webdataset
from PIL import Image

HERE = pathlib.Path(__file__).parent / "archives"
CLASSES = ["cat", "dog", "owl"]
LABELS = [2, 0, 1, 1, 0]
# Nothing of who wrote them, and when.
PLAIN = {"user": "", "group": "", "mtime": 0.0}


def picture(number):
    image = Image.new("L", (4, 3))
    image.putdata([(number * 37 + at * 11) % 256 for at in range(12)])
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def of_webdataset(name, label):
    with webdataset.TarWriter(str(HERE / name), **PLAIN) as writer:
        for number, of in enumerate(LABELS):
            writer.write({"__key__": f"{number:06}", "png": picture(number), **label(of)})


def of_tarfile(name, form, folder, **options):
    with tarfile.open(HERE / name, "w", format=form, **options) as archive:

        def add(path, content, kind=tarfile.REGTYPE):
            member = tarfile.TarInfo(path)
            member.size, member.type = len(content), kind
            if form == tarfile.PAX_FORMAT and kind == tarfile.REGTYPE:
                member.pax_headers = {"mtime": "1.5", "SCHILY.xattr.user.note": "nothing"}
            archive.addfile(member, io.BytesIO(content))

        add(folder, b"", tarfile.DIRTYPE)
        for number, of in enumerate(LABELS):
            add(f"{folder}/{number:06}.png", picture(number))
            # What macOS leaves.
            add(f"{folder}/._{number:06}.png", b"?")
            add(f"{folder}/{number:06}.cls", f" {of}\n".encode())
            add(f"{folder}/{number:06}.seg.png", b"")
        add(f"{folder}/README", b"no sample")


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    of_webdataset("numbers.tar", lambda of: {"cls": of})
    of_webdataset("keys.tar", lambda of: {"json": {"label": of, "caption": "a picture"}})
    of_webdataset("names.tar", lambda of: {"txt": CLASSES[of]})
    of_tarfile("ustar.tar", tarfile.USTAR_FORMAT, "/".join(["folder"] * 18))
    of_tarfile("pax.tar", tarfile.PAX_FORMAT, "é" * 70, pax_headers={"comment": "of all"})
    of_tarfile("gnu.tar", tarfile.GNU_FORMAT, "f" * 130)
