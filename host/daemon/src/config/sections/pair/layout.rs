//! `layout`: how the records of the volume look, for a copy that is to be opened by search

use farseal_core::layout::{Field as KeyField, Form, Layout};
use farseal_core::units::BlockBytes;

use super::super::super::problem::ConfigError;
use super::super::super::read::{Field, Table};

const FORM: &str = "{ record-bytes = 512, fields = [{ name = \"id\", offset = 0, length = 8, form = \"number-le\" }] }";

/// `layout`, which few pairs have.
pub(super) fn layout(
    table: &mut Table<'_, '_>,
    block: BlockBytes,
    encrypted: bool,
) -> Result<Option<Layout>, ConfigError> {
    let Some(place) = table.take("layout") else { return Ok(None) };
    if !encrypted {
        let fix = "remove the line, or set encrypted = true";
        return Err(place.wrong(
            "a pair that is not encrypted has no keys to search with",
            "layout on an encrypted pair",
            fix,
        ));
    }
    let mut declared = place.table(FORM)?;
    let bytes = declared.need("record-bytes", "whole blocks, up to 1 MiB", "add record-bytes = 512")?;
    let record = whole(&bytes, "whole blocks, up to 1 MiB")?;
    let fields = declared.need("fields", FORM, "add fields = [..]")?;
    let fields = fields.list(FORM)?.iter().map(field).collect::<Result<Vec<_>, _>>()?;
    declared.finish()?;
    let layout = Layout::new(record, block, fields);
    layout.map(Some).map_err(|error| place.wrong(&error.to_string(), FORM, "correct it, alike at both sites"))
}

fn field(place: &Field<'_, '_>) -> Result<KeyField, ConfigError> {
    let mut table = place.table(FORM)?;
    let name = table.need("name", "a name of a-z, 0-9, - and _", "add name = \"id\"")?;
    let name = name.text("a name of a-z, 0-9, - and _")?.to_owned();
    let number = |table: &mut Table<'_, '_>, key: &'static str| {
        let form = "a number of bytes";
        whole(&table.need(key, form, &format!("add {key} = 8"))?, form)
    };
    let (offset, length) = (number(&mut table, "offset")?, number(&mut table, "length")?);
    let words = Form::ALL.map(|form| (form.word(), form));
    let form = table.take("form").map(|field| field.one_of(&words)).transpose()?.unwrap_or(Form::Raw);
    table.finish()?;
    Ok(KeyField { name, offset, length, form })
}

fn whole(field: &Field<'_, '_>, form: &str) -> Result<u32, ConfigError> {
    u32::try_from(field.integer(form)?)
        .map_err(|_| field.wrong("this is out of range", form, "write a smaller number, not below 0"))
}
