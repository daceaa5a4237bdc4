//! What befalls a server: it is killed, and its rules, roles and schemas change.

use std::sync::atomic::Ordering;

use serde_json::{Value as Json, json};

use crate::run::{Counts, World};
use crate::subscriber::Weather;
use crate::world::{self, SCHEMAS};
use crate::writers::call;

impl World {
    /// One of them, while others write and listen.
    pub fn misfortune(&mut self, weather: &Weather, counts: &mut Counts) {
        match self.rng.below(100) {
            0..30 => {
                weather.down.store(true, Ordering::SeqCst);
                weather.kills.fetch_add(1, Ordering::SeqCst);
                if self.rng.chance(30) {
                    // In an orderly way, for once.
                    self.server.terminate();
                }
                self.server.restart();
                weather.down.store(false, Ordering::SeqCst);
                counts.kills += 1;
            }
            30..40 => {
                let schema = *self.rng.pick(&SCHEMAS);
                let rules = self.rng.below(world::variants(schema));
                self.forms.get_mut(schema).expect("a form").rules = rules;
                weather.changes.fetch_add(1, Ordering::SeqCst);
                self.apply(schema);
                counts.rules += 1;
            }
            40..50 => {
                let who = 1 + self.rng.below(2);
                let change = if self.rng.chance(50) { "$add" } else { "$clear" };
                let body = json!({ "roles": { change: [{ "id": self.editor }] } });
                weather.changes.fetch_add(1, Ordering::SeqCst);
                let path = format!("/api/content/user/{}", self.people[who].id);
                self.admin("PUT", &path, &body);
                counts.roles += 1;
            }
            50..58 => {
                let schema = *self.rng.pick(&SCHEMAS);
                let form = self.forms.get_mut(schema).expect("a form");
                if form.more > 0 {
                    // Those who read the column hear no more of it under that name.
                    let renames = form.renames;
                    form.renames += 1;
                    weather.changes.fetch_add(1, Ordering::SeqCst);
                    let rename = json!([{ "from": world::more(0, renames),
                                          "to": world::more(0, renames + 1) }]);
                    self.put(schema, rename);
                    counts.renames += 1;
                }
            }
            58..69 => {
                let schema = *self.rng.pick(&SCHEMAS);
                self.forms.get_mut(schema).expect("a form").more += 1;
                self.apply(schema);
                counts.columns += 1;
            }
            _ => {
                self.strangers += 1;
                let schema = world::stranger(self.strangers);
                self.admin("POST", "/api/schema", &schema);
            }
        }
    }

    fn apply(&self, schema: &str) {
        self.put(schema, json!([]));
    }

    fn put(&self, schema: &str, renames: Json) {
        let file = world::file(schema, self.forms[schema]);
        let body = json!({ "schema": file, "rename_fields": renames });
        self.admin("PUT", &format!("/api/schema/{schema}"), &body);
    }

    fn admin(&self, method: &str, path: &str, body: &Json) {
        let answer = call(self.address, method, path, self.people[0].token.as_deref(), Some(body));
        if answer.as_ref().is_none_or(|(status, _)| *status != 200) {
            self.stop(&format!("{method} {path} {body}: {answer:?}"));
        }
    }
}
