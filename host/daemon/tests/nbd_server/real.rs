//! The clients that initiators really use. One that is not installed is named, and not tested.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use farseal::nbd::tls::TlsMode;

use crate::memory::{Memory, await_counter, serve, stop};

const MIB: usize = 1 << 20;

/// A command, unless the client is missing here. nbdsh takes python3 from the path, and needs the system's.
pub(crate) fn client(name: &str) -> Option<Command> {
    let path = Path::new("/usr/bin").join(name);
    if !path.exists() {
        eprintln!("not tested here: {name} is not installed");
        return None;
    }
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).env("PATH", "/usr/bin:/bin");
    Some(command)
}

/// Runs it to success, and gives what it printed.
pub(crate) fn succeed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{out}\n{err}");
    out.into_owned()
}

fn uri(address: SocketAddr) -> String {
    format!("nbd://{address}/disk")
}

/// Bytes that compress badly and have a hole in the middle.
pub(crate) fn image(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    })
    .take(len)
    .collect();
    bytes[len / 4..len / 2].fill(0);
    bytes
}

#[test]
fn nbdinfo_sees_size_flags_and_contexts() {
    let Some(mut nbdinfo) = client("nbdinfo") else {
        return;
    };
    let (_server, address, _) = serve(Memory::new(3 * MIB), TlsMode::Off);
    let told = succeed(nbdinfo.args(["--json", &uri(address)]));
    for expected in [
        r#""protocol": "newstyle-fixed""#,
        r#""TLS": false"#,
        r#""structured": true"#,
        r#""export-name": "disk""#,
        r#""description": "in memory""#,
        r#""export-size": 3145728"#,
        r#""can_multi_conn": true"#,
        r#""can_fast_zero": true"#,
        r#""can_df": true"#,
        r#""block_size_minimum": 1"#,
        r#""block_size_preferred": 4096"#,
        r#""block_size_maximum": 33554432"#,
        r#""base:allocation""#,
        r#""farseal:test""#,
    ] {
        assert!(told.contains(expected), "{expected} is missing in {told}");
    }
    let listed = succeed(client("nbdinfo").unwrap().args(["--list", "--json", &format!("nbd://{address}")]));
    assert!(listed.contains(r#""export-name": "disk""#), "{listed}");
}

#[test]
fn nbdcopy_brings_an_image_there_and_back() {
    let Some(mut nbdcopy) = client("nbdcopy") else {
        return;
    };
    let memory = Memory::new(16 * MIB);
    let (server, address, _) = serve(memory.clone(), TlsMode::Off);
    let directory = tempfile::tempdir().unwrap();
    let (there, back) = (directory.path().join("there"), directory.path().join("back"));
    let expected = image(16 * MIB);
    fs::write(&there, &expected).unwrap();
    succeed(nbdcopy.args(["--connections=4", "--requests=64", "--flush"]).arg(&there).arg(uri(address)));
    assert!(memory.contents() == expected);
    assert!(memory.flushes() > 0);
    succeed(client("nbdcopy").unwrap().arg(uri(address)).arg(&back));
    assert!(fs::read(&back).unwrap() == expected);
    await_counter(&server, "abandoned", 0);
    await_counter(&server, "protocol_violations", 0);
    stop(server);
}

#[test]
fn nbdinfo_maps_the_holes() {
    let (Some(mut nbdinfo), Some(mut nbdcopy)) = (client("nbdinfo"), client("nbdcopy")) else {
        return;
    };
    let (_server, address, _) = serve(Memory::new(4 * MIB), TlsMode::Off);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    fs::write(&path, image(4 * MIB)).unwrap();
    succeed(nbdcopy.arg("--destination-is-zero").arg(&path).arg(uri(address)));
    let map = succeed(nbdinfo.args(["--map", &uri(address)]));
    let fields: Vec<Vec<&str>> = map.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    assert_eq!(fields, [["0", "1048576", "0"], ["1048576", "1048576", "3"], ["2097152", "2097152", "0"]], "{map}");
}

#[test]
fn qemu_img_converts_and_compares() {
    let Some(mut qemu_img) = client("qemu-img") else {
        return;
    };
    let memory = Memory::new(16 * MIB);
    let (_server, address, _) = serve(memory.clone(), TlsMode::Off);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let expected = image(16 * MIB);
    fs::write(&path, &expected).unwrap();
    succeed(qemu_img.args(["convert", "-n", "-W", "-m", "16", "-f", "raw", "-O", "raw"]).arg(&path).arg(uri(address)));
    assert!(memory.contents() == expected);
    succeed(client("qemu-img").unwrap().args(["compare", "-f", "raw", "-F", "raw"]).arg(&path).arg(uri(address)));
    let map = succeed(client("qemu-img").unwrap().args(["map", "-f", "raw", "--output=json", &uri(address)]));
    assert!(map.contains(r#""zero": true, "data": false"#), "{map}");
}

#[test]
fn qemu_io_writes_reads_zeroes_trims_and_flushes() {
    let Some(mut qemu_io) = client("qemu-io") else {
        return;
    };
    let memory = Memory::new(64 * MIB);
    let (_server, address, _) = serve(memory.clone(), TlsMode::Off);
    let mut script = Vec::new();
    for command in [
        "write -P 0x11 0 32M",
        "aio_write -P 0x22 1M 1M",
        "aio_write -P 0x33 2M 1M",
        "aio_flush",
        "read -P 0x22 1M 1M",
        "read -P 0x33 2M 1M",
        "write -P 0x44 -f 1234 4321",
        "read -P 0x44 1234 4321",
        "write -z -u 4M 1M",
        "write -z 5M 1M",
        "discard 6M 1M",
        "read -P 0 4M 2M",
        "flush",
    ] {
        script.extend(["-c", command]);
    }
    let told = succeed(qemu_io.args(["-f", "raw"]).args(script).arg(uri(address)));
    assert!(!told.contains("failed") && !told.contains("error"), "{told}");
    assert!(memory.contents()[1234..1234 + 4321].iter().all(|byte| *byte == 0x44));
    assert!(memory.flushes() > 0);
}

#[test]
fn nbdsh_sees_the_errors_of_the_protocol() {
    let Some(mut nbdsh) = client("nbdsh") else {
        return;
    };
    let (_server, address, _) = serve(Memory::new(MIB), TlsMode::Off);
    let script = r#"
h.set_strict_mode(0)
h.connect_uri(URI)
def fails(code, call):
    try:
        call()
    except nbd.Error as error:
        assert error.errno == code, (code, error.errno, error.string)
        return
    raise AssertionError("should fail with " + code)
size = h.get_size()
fails("ENOSPC", lambda: h.pwrite(b"x" * 4096, size))
fails("EINVAL", lambda: h.pread(4096, size))
fails("EINVAL", lambda: h.pread(0, 0))
fails("EINVAL", lambda: h.trim(4096, size))
fails("ENOTSUP", lambda: h.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO))
h.pwrite(b"abc", 4095, nbd.CMD_FLAG_FUA)
assert h.pread(5, 4094) == b"\0abc\0"
h.zero(4096, 0, nbd.CMD_FLAG_NO_HOLE)
h.cache(4096, 0)
h.trim(4096, 4096)
h.flush()
for i in range(100):
    h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray([i]) * 512), i * 512)
while h.aio_in_flight():
    h.poll(-1)
assert h.pread(512, 99 * 512) == bytes([99]) * 512
h.shutdown()
print("all well")
"#;
    let script = script.replace("URI", &format!("{:?}", uri(address)));
    let told = succeed(nbdsh.args(["-c", &script]));
    assert!(told.contains("all well"), "{told}");
}

#[test]
fn fio_verifies_what_it_wrote() {
    let Some(mut fio) = client("fio") else { return };
    let (server, address, _) = serve(Memory::new(8 * MIB), TlsMode::Off);
    let directory = tempfile::tempdir().unwrap();
    let told = succeed(
        fio.current_dir(directory.path())
            .args(["--name=verify", "--ioengine=nbd", "--rw=randwrite", "--bsrange=512-128k", "--iodepth=32"])
            .args(["--size=8M", "--verify=crc32c", "--do_verify=1", "--randseed=7", "--bs_unaligned=1"])
            .arg(format!("--uri={}", uri(address))),
    );
    assert!(told.contains("err= 0"), "{told}");
    await_counter(&server, "protocol_violations", 0);
}

#[test]
fn several_real_clients_share_one_export() {
    let Some(mut first) = client("qemu-io") else {
        return;
    };
    let memory = Memory::new(16 * MIB);
    let (_server, address, _) = serve(memory.clone(), TlsMode::Off);
    let mut second = client("qemu-io").unwrap();
    let one = ["-f", "raw", "-c", "write -P 1 0 8M", "-c", "read -P 1 0 8M"];
    let two = ["-f", "raw", "-c", "write -P 2 8M 8M", "-c", "read -P 2 8M 8M"];
    let mut running = first.args(one).arg(uri(address)).stdout(Stdio::null()).spawn().unwrap();
    succeed(second.args(two).arg(uri(address)));
    assert!(running.wait().unwrap().success());
    let contents = memory.contents();
    assert!(contents[..8 * MIB].iter().all(|byte| *byte == 1) && contents[8 * MIB..].iter().all(|byte| *byte == 2));
}
