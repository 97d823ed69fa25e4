//! `soupctl devices`: what there is to compute on here.

use soup_core::devices::DeviceReport;
use soup_core::{Error, Result};

use crate::args::DevicesArgs;
use crate::choices::OutputFormat;
use crate::print;
use crate::quantity::Bytes;
use crate::table::columns;

/// Lists the devices; one that cannot be used is told of and no failure.
///
/// # Errors
/// [`Usage`](soup_core::ErrorKind::Usage) for a precision that is none.
pub(crate) async fn run(args: DevicesArgs) -> Result<()> {
    print::line("comparing with the processor and measuring, which takes some seconds a device");
    let looked = tokio::task::spawn_blocking(move || soup_worker::device::devices(&args.precision)).await;
    let all = looked.map_err(|e| Error::internal("looking at the devices panicked").with_source(e))??;
    match args.format {
        OutputFormat::Json => print::json(&all),
        OutputFormat::Table => print::result(&render(&all)),
    }
}

fn render(all: &[DeviceReport]) -> String {
    let head = ["DEVICE", "NAME", "DRIVER", "MEMORY", "FREE", "NUMERICS", "COPY", "BLEND", "STATUS"];
    let dash = || "-".to_owned();
    let bytes = |bytes: Option<u64>| bytes.map_or_else(dash, |b| Bytes(b).to_string());
    let speed = |speed: Option<f64>| speed.map_or_else(dash, |s| format!("{:.1} GB/s", s / 1e9));
    let row = |d: &DeviceReport| {
        vec![
            d.device.clone(),
            d.name.clone().unwrap_or_else(dash),
            d.driver.clone().unwrap_or_else(dash),
            bytes(d.memory_bytes),
            bytes(d.free_bytes),
            d.numerics.clone().unwrap_or_else(dash),
            speed(d.copy_bytes_per_second),
            speed(d.blend_bytes_per_second),
            d.error.clone().unwrap_or_else(|| "ok".to_owned()),
        ]
    };
    columns(&head, &all.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_works_and_what_does_not_are_in_one_table() {
        let cpu = DeviceReport {
            device: "cpu".into(),
            numerics: Some("flex-f32".into()),
            copy_bytes_per_second: Some(12.34e9),
            ..DeviceReport::default()
        };
        let card = DeviceReport {
            device: "cuda:0".into(),
            memory_bytes: Some(80 << 30),
            error: Some("there is no driver".into()),
            ..DeviceReport::default()
        };
        let text = render(&[cpu, card]);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|w| !w.is_empty()).collect())
            .collect();
        assert_eq!(lines[1], ["cpu", "-", "-", "-", "-", "flex-f32", "12.3 GB/s", "-", "ok"]);
        assert_eq!(lines[2], ["cuda:0", "-", "-", "80.0 GiB", "-", "-", "-", "-", "there is no driver"]);
    }
}
