use super::*;
use crate::model::catalog::Catalog;
use crate::model::schema::{AccessRules, Column};
use crate::model::value::FieldType;

fn schema(id: u32, columns: usize) -> Arc<Schema> {
    let column = |n: usize| Column {
        id: FieldId(id * 1_000 + n as u32),
        name: format!("c{n}").into(),
        ty: FieldType::Json,
        optional: true,
        unique: false,
        default: None,
        sortable: false,
        filterable: false,
        enums: Vec::new(),
        size: None,
        automatic: false,
        key_of: None,
    };
    Arc::new(Schema {
        id: SchemaId(id),
        version: 300,
        name: "s".into(),
        table: "s".into(),
        label_field: "c0".into(),
        columns: (0..columns).map(column).collect(),
        relations: Vec::new(),
        primary: columns / 2,
        created_at: None,
        updated_at: None,
        indexes: Vec::new(),
        access: AccessRules::default(),
        kind: SchemaKind::Junction,
        source: Arc::default(),
    })
}

/// A small generator: the same entries every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        (self.bits() % below as u64) as usize
    }

    fn bits(&mut self) -> u64 {
        let number = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = number.wrapping_add(1_442_695_040_888_963_407);
        (self.0 ^ (self.0 >> 31)).rotate_left(17)
    }

    fn text(&mut self) -> Arc<str> {
        let length = self.roll(40);
        let char = |_| char::from_u32(self.bits() as u32 >> 12).unwrap_or('x');
        (0..length).map(char).collect::<String>().into()
    }

    fn value(&mut self) -> Value {
        match self.roll(12) {
            0 => Value::Null,
            1 => Value::Bool(self.roll(2) == 1),
            2 => Value::Int(self.bits() as i64),
            3 => Value::Int(self.roll(400) as i64 - 200),
            4 => Value::Int([i64::MIN, i64::MAX, 0, -1][self.roll(4)]),
            5 => Value::Time(self.bits() as i64),
            6 => Value::Float(self.bits() as i64 as f64 / 1e3),
            7 => Value::Text(self.text()),
            8 => Value::Json(self.text()),
            9 => Value::Uuid(Uuid::from_u64_pair(self.bits(), self.bits())),
            _ => Value::Bytes((0..self.roll(300)).map(|_| self.bits() as u8).collect()),
        }
    }

    fn row(&mut self, length: usize) -> Arc<Row> {
        Arc::new(Row::new((0..length).map(|_| self.value()).collect()))
    }

    /// Changes of schemas 1 (one column) to 4 (four columns).
    fn changes(&mut self) -> Vec<(Arc<Schema>, Change)> {
        let schemas: Vec<_> = (1..5).map(|id| schema(id, id as usize)).collect();
        (0..self.roll(12)).map(|_| self.change(&schemas)).collect()
    }

    fn change(&mut self, schemas: &[Arc<Schema>]) -> (Arc<Schema>, Change) {
        let schema = schemas[self.roll(schemas.len())].clone();
        let before = self.row(schema.columns.len());
        let after = match self.roll(2) {
            0 => before.clone(),
            _ => self.row(schema.columns.len()),
        };
        let key = after.get(schema.primary).clone();
        let (op, before, after) = match self.roll(4) {
            0 => (Op::Create, None, Some(after)),
            1 => (Op::Delete, Some(before), None),
            _ => (Op::Update, Some(before), Some(after)),
        };
        let (id, schema_version) = (schema.id, schema.version);
        (schema, Change { schema: id, schema_version, op, key, before, after })
    }
}

fn encoded(changes: &[(Arc<Schema>, Change)], origin: Option<Uuid>, notices: &[Notice]) -> Vec<u8> {
    let (schemas, changes): (Vec<_>, Vec<_>) = changes.iter().cloned().unzip();
    let mut bytes = Vec::new();
    encode(origin, &changes, &schemas, notices, &mut bytes);
    bytes
}

#[test]
fn there_and_back() {
    let mut dice = Dice(1);
    for round in 0..2_000 {
        let changes = dice.changes();
        let origin = (round % 2 == 0).then(|| Uuid::from_u64_pair(dice.bits(), dice.bits()));
        let raw = decode(&encoded(&changes, origin, &[])).expect("whole");
        assert_eq!(raw.origin, origin);
        assert_eq!(raw.changes.len(), changes.len());
        for (read, (schema, written)) in raw.changes.iter().zip(&changes) {
            let shape = &raw.shapes[read.shape];
            assert_eq!((shape.schema, shape.version), (schema.id, schema.version));
            assert!(shape.fields.iter().map(|(id, _)| *id).eq(schema.columns.iter().map(|c| c.id)));
            assert_eq!(read.op, written.op);
            let values = |row: &Option<Arc<Row>>| row.as_ref().map(|row| row.values.to_vec());
            assert_eq!(read.before, values(&written.before));
            assert_eq!(read.after, values(&written.after));
        }
    }
}

#[test]
fn damage_is_told_and_never_a_panic() {
    let mut dice = Dice(2);
    for _ in 0..5_000 {
        let mut bytes = encoded(&dice.changes(), None, &[]);
        let cut = dice.roll(bytes.len());
        assert!(decode(&bytes[..cut]).is_err());
        for _ in 0..1 + dice.roll(3) {
            let at = dice.roll(bytes.len());
            bytes[at] = dice.bits() as u8;
        }
        let _ = decode(&bytes);
        let noise: Vec<u8> = (0..dice.roll(200)).map(|_| dice.bits() as u8).collect();
        let _ = decode(&[&[VERSION, 0], &noise[..]].concat());
        assert!(decode(&[&[VERSION + 1], &noise[..]].concat()).is_err());
    }
}

#[test]
fn notices() {
    let user = Uuid::from_u128(5);
    let catalog = Arc::new(Catalog::new(u64::MAX, Vec::new()));
    let notices = [
        Notice::Session { user, session: None },
        Notice::Catalog { catalog, broken: vec![SchemaId(0), SchemaId(u32::MAX)] },
        Notice::Session { user, session: Some(Uuid::nil()) },
    ];
    let raw = decode(&encoded(&[], None, &notices)).expect("whole");
    assert_eq!(
        raw.notices,
        [
            Logged::Session { user, session: None },
            Logged::Catalog { version: u64::MAX, broken: vec![SchemaId(0), SchemaId(u32::MAX)] },
            Logged::Session { user, session: Some(Uuid::nil()) },
        ]
    );
}
