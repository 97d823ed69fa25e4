//! Renders a report, as `-o json` prints it, to a page: `cargo run -p soup-report --example render -- report.json out.html`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [report, page] = arguments.as_slice() else {
        return Err("usage: render REPORT.json PAGE.html".into());
    };
    let report = serde_json::from_str(&std::fs::read_to_string(report)?)?;
    std::fs::write(page, soup_report::html(&report))?;
    Ok(())
}
