//! The machine's buttons: power, and Ctrl-Alt-Del at its keyboard.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use tokio::sync::mpsc;

const INPUT: &str = "/sys/class/input";
/// `struct input_event` of linux/input.h on 64 bit: two times, type, code, value.
const EVENT: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// Something that is sent each time the power button is pressed. A thread a button, for the life of the process.
pub(super) fn power() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(1);
    for entry in std::fs::read_dir(INPUT).into_iter().flatten().flatten() {
        let name = std::fs::read_to_string(entry.path().join("device/name")).unwrap_or_default();
        if !name.starts_with("Power Button") || !entry.file_name().to_string_lossy().starts_with("event") {
            continue;
        }
        let device = Path::new("/dev/input").join(entry.file_name());
        let sender = sender.clone();
        let watching =
            std::thread::Builder::new().name("button".to_owned()).spawn(move || watch(&device, &sender));
        if let Err(error) = watching {
            tracing::warn!("the power button is not heard: {error}");
        }
    }
    receiver
}

fn watch(device: &Path, sender: &mpsc::Sender<()>) {
    let Ok(mut file) = File::open(device) else { return };
    let mut event = [0; EVENT];
    while file.read_exact(&mut event).is_ok() {
        if is_press(&event) {
            let _waiting_already = sender.try_send(());
        }
    }
}

fn is_press(event: &[u8; EVENT]) -> bool {
    let short = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
    short(16) == EV_KEY && short(18) == KEY_POWER && value == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_press_is_told_from_its_release_and_from_other_keys() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut bytes = [0; EVENT];
            bytes[16..18].copy_from_slice(&kind.to_ne_bytes());
            bytes[18..20].copy_from_slice(&code.to_ne_bytes());
            bytes[20..].copy_from_slice(&value.to_ne_bytes());
            bytes
        };
        assert!(is_press(&event(1, 116, 1)));
        for other in [event(1, 116, 0), event(1, 30, 1), event(0, 0, 0)] {
            assert!(!is_press(&other));
        }
    }
}
