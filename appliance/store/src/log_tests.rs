//! The log against torn, stale and damaged bytes.
use super::*;

fn header(epoch: u64, revision: u64) -> Header {
    Header {
        epoch,
        flushed: epoch - 1,
        totals: Totals::default(),
        revision: Revision(revision),
        clean: false,
    }
}

fn append(slot: &mut Slot, revision: u64, value: &str) {
    let mut frame = vec![0; FRAME_HEADER];
    encode_write(&mut frame, b"t\0k", Some(value.as_bytes()));
    slot.append(Revision(revision), 1, &mut frame).unwrap();
}

fn values(content: &Content) -> Vec<String> {
    let text = |v: &Option<Arc<[u8]>>| String::from_utf8(v.as_ref().unwrap().to_vec()).unwrap();
    content.writes.iter().map(|(_, v)| text(v)).collect()
}

#[test]
fn frames_come_back_in_order_and_a_torn_tail_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut slot = Slot::open(&path).unwrap();
    slot.activate(header(1, 0)).unwrap();
    append(&mut slot, 1, "one");
    append(&mut slot, 2, "two");
    append(&mut slot, 3, "three");
    let mut again = Slot::open(&path).unwrap();
    let content = again.replay().unwrap();
    assert_eq!(
        (values(&content), content.revision),
        (vec!["one".into(), "two".into(), "three".into()], Some(Revision(3)))
    );
    // Each byte of the last frame, torn.
    let end = again.end;
    let last = (FRAME_HEADER + 7 + 3 + 5) as u64;
    for at in end - last..end {
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
        let content = Slot::open(&path).unwrap().replay().unwrap();
        assert_eq!(values(&content), ["one", "two"], "byte {at}");
        file.write_all_at(&byte, at).unwrap();
    }
}

#[test]
fn damage_before_a_good_frame_is_no_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut slot = Slot::open(&path).unwrap();
    slot.activate(header(1, 0)).unwrap();
    append(&mut slot, 1, "one");
    append(&mut slot, 2, "two");
    slot.write_at(FRAMES + 40, b"X").unwrap();
    let error = Slot::open(&path).unwrap().replay().err().unwrap();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[test]
fn a_new_life_forgets_the_old_frames_and_target_and_a_torn_header_brings_the_old_life_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut slot = Slot::open(&path).unwrap();
    slot.activate(header(1, 0)).unwrap();
    append(&mut slot, 1, "one");
    append(&mut slot, 2, "two");
    let target = Totals { records: 1, digest: 77 };
    slot.write_target(target).unwrap();
    assert_eq!(Slot::open(&path).unwrap().target().unwrap(), Some(target));
    slot.activate(header(3, 9)).unwrap();
    let mut fresh = Slot::open(&path).unwrap();
    let content = fresh.replay().unwrap();
    assert_eq!(
        (content.writes.len(), content.revision, fresh.target().unwrap()),
        (0, Some(Revision(9)), None)
    );
    slot.write_at(slot.copy * 4096 + 8, &[0xee; 30]).unwrap();
    let mut old = Slot::open(&path).unwrap();
    assert_eq!(
        (values(&old.replay().unwrap()), old.target().unwrap()),
        (vec!["one".into(), "two".into()], Some(target))
    );
}
