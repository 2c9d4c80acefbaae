//! `divvy job explain`.

use api::client::Client;
use model::JobId;

use crate::arguments::Format;
use crate::failure::Failure;
use crate::patience::patiently;
use crate::print::{print_json, print_line};
use crate::printable::printable;

pub(super) async fn run(grid: &Client, format: Format, id: JobId) -> Result<(), Failure> {
    let explanation = patiently(async || grid.explain(id).await).await?;
    match format {
        Format::Table => {
            print_line(explanation.state.as_str())?;
            explanation.reasons.iter().try_for_each(|reason| print_line(&format!("- {}", printable(reason))))
        }
        Format::Json => print_json(&explanation),
        Format::Quiet => print_line(explanation.state.as_str()),
    }
}
