"use strict";
// The usage page: what is left, who is near a limit, and what to do about it. Names of users,
// groups and models are whatever somebody chose: they become text nodes, never HTML.
/** @import { Column, Grant, Limit, Me, State, TableOptions } from "./types.d.ts" */

const HOME = location.pathname.replace(/usage-limits\/*$/, ""); // Open WebUI's own path
const BASE = `${HOME}usage-limits/api/`;
const SHOWN_ROWS = 25;
const CHECK_AFTER = 400; // milliseconds without a key
const RETRY_AFTER = 3000; // milliseconds after a check that the server didn't answer
const PERIODS = { month: "This month", 7: "7 days", 30: "30 days", 90: "90 days", 365: "A year" };
/** @type {State} */
const state = { me: null, period: "month", draft: null, turn: 0 };
let languages, tag;

/** @type {(id: string) => any} */ // page.html has all that are asked for
const byId = (id) => document.getElementById(id);
const stored = (key) => {
  try {
    return localStorage.getItem(key) || "";
  } catch { // a browser that keeps nothing
    return "";
  }
};

function followTheme() {
  const [chosen] = /dark|light/.exec(stored("theme").replace(/^her$/, "light")) || [""];
  document.documentElement.dataset.theme = chosen;
}

// Words and numbers

function chooseLanguage() {
  for (const wish of [stored("locale"), ...navigator.languages]) {
    const parts = wish.toLowerCase().replaceAll("_", "-").split("-");
    for (; parts.length; parts.pop()) {
      const known = languages.aliases[parts.join("-")] || parts.join("-");
      if (Object.hasOwn(languages.words, known)) return known;
    }
  }
  return "en";
}

const inLanguage = (element) => Object.assign(element, {
  lang: tag, dir: languages.rtl.includes(tag) ? "rtl" : "ltr",
});
const t = (word) => languages.words[tag][languages.keys.indexOf(word)];
const digits = () => `${tag}-u-nu-latn`;
const number = (value, options, language = digits()) =>
  new Intl.NumberFormat(language, options).format(value ?? 0);
const dollars = (value) => number(value, {
  style: "currency", currency: "USD", currencyDisplay: "narrowSymbol",
  ...(value > 0 && value < 0.01 && { maximumSignificantDigits: 2 }),
}, languages.rtl.includes(tag) ? "en" : digits()); // as in the sentences
// What has no price has no cost: a zero would say that it was free.
const money = (value) => (value ? dollars(value) : "–");
const amount = (limit, value) => (limit.measure === "cost" ? dollars : number)(value);
const date = (value, options) => new Intl.DateTimeFormat(digits(), options).format(value);
const day = (text) => date(new Date(text), { day: "numeric", month: "short", timeZone: "UTC" });
const when = (text) => (text ? date(new Date(text), {
  month: "short", day: "numeric", hour: "numeric", minute: "2-digit",
}) : "–");

// Elements

const nodes = (parts) => parts.flat(9).filter((one) => one || one === 0);
const fill = (element, ...parts) => element.replaceChildren(...nodes(parts));

function el(name, ...children) {
  const attributes = children[0]?.constructor === Object ? children.shift() : {};
  const [kind, ...classes] = name.split(".");
  const made = document.createElement(kind || "div");
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value || value === 0) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...nodes(children));
  return made;
}

// A text that leaves the direction of what is around it alone, whatever is in it.
const own = (...text) => el("bdi", text);
const note = (...text) => el("p.note", text);
const link = (href, ...text) => el("a", { href }, text);
const say = (text) => (byId("live").textContent = text);
const button = (text, onclick, kind = "button") => el(kind, { type: "button", onclick }, text);
const section = (title, ...parts) => [el("h2", title), parts];
const tableSection = (title, columns, rows, options) =>
  section(title, table(title, columns, rows, options));
const field = (text, input) => el("label.wide", text, input);
const form = (name, submit, ...parts) => el(name, { onsubmit: (event) => {
  event.preventDefault();
  submit(event.submitter);
} }, parts);
const fields = (title, submit, ...parts) =>
  form("form", submit, el("fieldset", el("legend", title), parts));
const select = (options, attributes = {}) => el("select", attributes,
  options.map(([value, text = value, selected]) => el("option", { value, selected }, text)));
const list = (items, kind = "ul") => el(kind, items.map((item) => el("li", item)));
const pairs = (kind, terms) => el(kind, terms.filter(Boolean).map(([name, value]) =>
  el("", el("dt", name), el("dd", value))));

// A part of a bar: the page's policy for content allows no style in an attribute.
function part(name, side, value, all) {
  const made = el(name);
  made.style[side] = `${Math.min(100, (100 * value) / all)}%`;
  return made;
}

// A column: what it reads of a row, its heading, what a cell shows, what it is sorted by.
const column = (key, name, show = (row) => row[key], value = (row) => row[key]) =>
  ({ key, name, show, value: (row) => value(row) ?? "" });
const columnOf = (kind, write) => (key, name, show = (row) => write(row[key]), ...more) =>
  ({ ...column(key, name, show, ...more), kind });
const figures = columnOf(".n", number), costs = columnOf(".n", money), times = columnOf(".t", when);

/** @param {string} caption @param {Column[]} columns @param {any[]} rows
 * @param {TableOptions} options */
function table(caption, columns, rows, { order, search, beside, plain, kind = () => "" } = {}) {
  let shown = SHOWN_ROWS, sorted = order || { key: "", sign: 1 }, wanted = "";
  if (!rows.length) return [beside && el(".row", beside), note(t("nothing"))];
  const words = new Map(rows.map((row) =>
    [row, columns.map((one) => one.value(row)).join(" ").toLowerCase()]));
  const body = el("tbody", { role: "rowgroup" }), rest = note();
  const compare = (one, other) => typeof one === "number" && typeof other === "number"
    ? one - other : String(one).localeCompare(String(other), tag, { numeric: true });
  const cell = (row, one, at) => el((at ? "td" : "th") + (one.kind || ""), {
    "data-column": one.name, role: at ? "cell" : "rowheader", scope: !at && "row",
  }, own(one.show(row)));

  function show() {
    let found = rows.filter((row) => words.get(row)?.includes(wanted));
    const by = columns.find((one) => one.key === sorted.key);
    if (by) found = found.toSorted((a, b) => sorted.sign * compare(by.value(a), by.value(b)));
    fill(body, found.slice(0, shown).map((row) =>
      el(`tr${kind(row)}`, { role: "row" }, columns.map((one, at) => cell(row, one, at)))));
    heads.forEach((head, at) => head.setAttribute("aria-sort",
      columns[at] !== by ? "none" : sorted.sign > 0 ? "ascending" : "descending"));
    fill(rest, found.length ? found.length > shown && [
      `${number(shown)} / ${number(found.length)} `,
      button(t("show_all"), () => { shown = Infinity; show(); })] : "Nothing found.");
    return found.length;
  }

  function sort(one) {
    sorted = { key: one.key, sign: sorted.key === one.key ? -sorted.sign : one.kind ? -1 : 1 };
    show();
  }

  const heads = columns.map((one) =>
    el(`th${one.kind || ""}`, { scope: "col", role: "columnheader" },
      plain ? one.name : button(one.name, () => sort(one))));
  const input = search && el("input", { type: "search", autocomplete: "off", oninput: () => {
    wanted = input.value.trim().toLowerCase();
    say(`${number(show())} found`);
  } });
  show();
  return [
    (input || beside) && el(".row", beside, input && field(search, input)),
    el(plain ? "table.plain" : "table", { role: "table", "aria-label": caption },
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads)), body),
    rest,
  ];
}

// The columns of use: a cost only where anything has a price.
const costColumn = (rows) =>
  rows.some((row) => row.cost_usd) ? [costs("cost_usd", t("cost"))] : [];
const useColumns = (rows) => [
  ...["requests", "input_tokens", "output_tokens"]
    .filter((key) => rows.some((row) => key in row))
    .map((key) => figures(key, t(key.replace("_tokens", "")))), ...costColumn(rows),
];

// Limits. Those of one moment, per request and at once, add nothing up.

/** @param {Limit} limit */
const isMoment = (limit) => /^(request|at once)$/.test(limit.period);
/** @param {Limit} limit */
const warnedAt = (limit) =>
  Number(/ warn (\d+)%/.exec(limit.limit)?.[1] ?? state.me?.soft_limit_percent ?? 80);
const isOwn = (limit) => limit.scope === "user";
const left = (limit) => amount(limit, limit.remaining);
const percent = (limit) => number(limit.percent / 100, { style: "percent" });
/** @param {Limit} limit */
const kindOf = (limit) => isMoment(limit) ? "" : limit.remaining <= 0 ? ".over"
  : limit.percent >= warnedAt(limit) ? ".near" : "";
// Those that are reached come first, then those that are near; else as the policy has them.
const urgency = (limit) => ["", ".near", ".over"].indexOf(kindOf(limit));
/** @param {Limit[]} limits */
const countable = (limits) => limits.filter((limit) => !isMoment(limit))
  .toSorted((one, other) => urgency(other) - urgency(one));
/** @param {Limit[]} limits */
const mostUsed = (limits) =>
  countable(limits.toSorted((one, other) => other.percent - one.percent))[0];

/** @param {Limit} limit */
function limitCard(limit) {
  const parts = [limit.used, limit.reserved].map((value) =>
    part("i", "width", limit.amount > 0 ? value : 1, limit.amount || 1));
  const kind = kindOf(limit), used = amount(limit, limit.used);
  return el(`li.card${kind}`,
    el("h2", own(limit.text), " ",
      kind === ".over" && [el("span.tag.bad", t("reached")), " "],
      !isOwn(limit) && el("span.tag", t("shared"), ": ", own(limit.scope))),
    el(".meter", { role: "meter", "aria-label": limit.text, "aria-valuemin": 0,
      "aria-valuemax": 100, "aria-valuenow": Math.min(100, limit.percent),
      "aria-valuetext": `${t("used")} ${used}, ${t("left")} ${left(limit)}` }, parts),
    pairs("dl", [
      [t("left"), left(limit)],
      [t("resets"), when(limit.reset_at)],
      [t("used"), [own(used), " ", own(`(${percent(limit)})`)]],
      limit.reserved > 0 && [t("reserved"), amount(limit, limit.reserved)],
      limit.granted > 0 && [t("grants"), amount(limit, limit.granted)],
    ]));
}

const limitCards = (limits) => [
  el("ul.cards", countable(limits).map(limitCard)),
  list(limits.filter(isMoment).map((limit) => own(limit.text))),
];

/** @param {Me["days"]} rows */
function dayChart(rows) {
  if (!rows.length) return note(t("nothing"));
  const by = new Map(rows.map((row) => [row.day, row])), days = [];
  // Days without any use are days as well.
  const last = Date.parse(rows[rows.length - 1].day);
  for (let at = Date.parse(rows[0].day); at <= last; at += 864e5) {
    const name = new Date(at).toISOString().slice(0, 10);
    days.push({ day: name, input_tokens: 0, output_tokens: 0, ...by.get(name) });
  }
  const sum = (one) => one.input_tokens + one.output_tokens;
  const most = Math.max(...days.map(sum), 1), every = Math.ceil(days.length / 6);
  const total = number(days.reduce((all, one) => all + sum(one), 0));
  const chart = el(".days", { role: "img",
    "aria-label": `${t("by_day")}: ${t("total")} ${total} ${t("tokens")}` },
  days.map((one, at) => el("", { title: `${day(one.day)}: ${number(sum(one))} ${t("tokens")}` },
    part("i.second", "height", one.output_tokens, most),
    part("i.first", "height", one.input_tokens, most),
    at % every === 0 && at + every <= days.length && el("span", day(one.day)))));
  return [
    el("figure", note(number(most, { notation: "compact" }), " ", t("tokens")), chart,
      note(el("i.key.first"), t("input"), " ", el("i.key.second"), t("output"))),
    el("details", el("summary", `${t("tokens")} / ${t("day")}`), table(t("by_day"),
      [column("day", t("day"), (row) => day(row.day)), ...useColumns(rows)], rows)),
  ];
}

// A user's limits and use, for the user or for an administrator

/** @param {Me} data @param {unknown} [afterLimits] */
function userParts(data, afterLimits) {
  const mark = (row) => row.running ? ` (${t("running")})`
    : row.estimated ? ` (${t("estimated")})` : "";
  return [
    data.exempt && el("p.said", afterLimits ? "Exempt: use is recorded, but never refused."
      : t("exempt")),
    data.limits.length ? limitCards(data.limits)
      : el("p", afterLimits ? "No limits apply." : t("no_limits")),
    afterLimits || grantTable(data.grants, data.limits),
    section(t("by_day"), dayChart(data.days)),
    tableSection(t("by_model"),
      [column("model", t("model")), ...useColumns(data.month)], data.month),
    tableSection(t("replies"), [
      times("at", t("time"), (row) => [when(row.at), mark(row)]), column("model", t("model")),
      ...useColumns(data.replies),
    ], data.replies),
  ];
}

const required = (placeholder, more) => el("input", { required: true, placeholder, ...more });
const reasonInput = (more) => required("", { maxlength: 200, ...more });

/** @param {Grant[]} grants @param {Limit[]} limits @param {Function} [revoke] */
function grantTable(grants, limits, revoke) {
  const rows = grants.filter((one) => one.holds && one.kind !== "revoke");
  const granted = (row) => {
    const one = limits.find((limit) => isOwn(limit) === isOwn(row) &&
      ["measure", "period", "model", "source"].every((key) => limit[key] === row[key]));
    return one ? one.text : `${row.measure.replace("_", " ")}/${row.period}`;
  };
  return rows.length > 0 && tableSection(t("grants"), [
    column("limit", t("limit"), granted),
    figures("amount", t("amount"), (row) => `+${amount(row, row.amount)}`),
    column("reason", t("reason")),
    times("expires_at", t("until")),
    ...(revoke ? [column("id", "Revoke", (row) => {
      const what = `${amount(row, row.amount)} of ${granted(row)}`;
      const why = reasonInput({ placeholder: "Reason", "aria-label": `Why ${what} is revoked` });
      return form("form.row", (control) => revoke(row, why.value, control), why,
        el("button", { "aria-label": `Revoke ${what}` }, "Revoke"));
    })] : []),
  ], rows, { plain: true });
}

async function myView() {
  const data = await call(`me?language=${tag}`);
  return [el(".row.title", el("h1", t("title")), button(t("refresh"), () => route())),
    userParts(data)];
}

// The administrator's views, in English

function since() {
  const from = new Date();
  from.setDate(state.period === "month" ? 1 : from.getDate() - Number(state.period) + 1);
  return from.toLocaleDateString("sv"); // which writes dates as ISO has them
}

const reportPath = (by) => `report?by=${by}&since=${since()}`;
const report = (by) => call(reportPath(by));
const periodPicker = () => el("label", "Period", select(
  Object.entries(PERIODS).map(([value, text]) => [value, text, value === state.period]),
  { onchange: (event) => { state.period = event.target.value; route(); } },
));
const files = (by) => note(`Download use by ${by.replaceAll(",", ", ")}: `,
  ["csv", "json"].map((format) => [el("a", { href: `${BASE}${reportPath(by)}&format=${format}`,
    download: `usage-by-${by}.${format}` }, format.toUpperCase()), " "]));
const nameOf = (user) => user.name || user.email || user.user_id;
const userLink = (row) => link(`#user=${encodeURIComponent(row.user_id)}`, nameOf(row));

// A row with what its most used limit is sorted by, if it has one.
const withLimit = (row, most) => ({ ...row, most, limit: most?.text, used: most?.percent ?? -1,
  left: most?.remaining ?? Infinity, resets: most?.reset_at });
const limitColumns = () => [
  columnOf(".w")("limit", "Limit", (row) => row.limit ?? "no limit"),
  figures("used", "Used", ({ most }) => (most ? percent(most) : "–")),
  figures("left", "Left", ({ most }) => (most ? left(most) : "–")), times("resets", "Resets"),
];
const nearFirst = { kind: ({ most }) => (most ? kindOf(most) : ""),
  order: { key: "used", sign: -1 } };

function userTable(users, more = [], options = {}) {
  // A pool is nobody's own: it has rows of its own.
  const rows = users.map((row) => withLimit(row, mostUsed(row.limits.filter(isOwn))));
  return table("Users, the most used limit of each", [
    column("user", "User", (row) => [userLink(row), row.exempt && [" ",
      el("span.tag", "exempt")]], (row) => [row.name, row.email, row.user_id].join(" ")),
    column("groups", "Groups", (row) => row.groups.join(", ")),
    column("policy", "Policy"), ...limitColumns(), ...more,
  ], rows, { ...nearFirst, ...options });
}

async function overview() {
  const [all, days, near, pools, refused] = await Promise.all([call("overview"), report("day"),
    call("users?near=true"), call("pools"), call(`shadow?since=${since()}`).catch(() => [])]);
  const sum = (key) => days.reduce((total, row) => total + (row[key] || 0), 0);
  const over = near.filter((row) => kindOf(mostUsed(row.limits.filter(isOwn))) === ".over");
  const full = poolRows(pools).filter((row) => kindOf(row.most));
  return [
    el(".row", periodPicker()),
    pairs("dl.totals", [["Requests", number(sum("requests"))],
      ["Input tokens", number(sum("input_tokens"))],
      ["Output tokens", number(sum("output_tokens"))], ["Cost", money(sum("cost_usd"))],
      ["Users over a limit", number(over.length)],
      ["Users near a limit", number(near.length - over.length)]]),
    all.shadow_mode && el("p.said", "Shadow mode is on: nobody is refused."),
    all.notices.length > 0 && el(".said.bad", list(all.notices),
      link("#policies", "Correct the policies")),
    section("Users near or over a limit", near.length
      ? [note("Open a user to grant more, or to reset a limit."), userTable(near)]
      : note("Nobody.")),
    full.length > 0 && section("Pools near or over a limit", poolTable(full)),
    section("By day", dayChart(days)),
    refused.length > 0 && tableSection("Shadow mode would have refused", [
      times("at", "Time"), column("email", "User", userLink), column("model", "Model"),
      column("limit", "Limit"), column("policy", "Policy"),
    ], refused, { search: "Search refusals" }),
    section("Installation",
      note(`Usage Limits ${all.version}, Open WebUI ${all.open_webui}, ledger: ${all.ledger}, `,
        `days as in ${all.timezone}`),
      list(all.checks.map(({ ok, text }) =>
        [ok ? el("span.good", "OK: ") : el("span.bad", "Note: "), text])),
      table("Ways to a model", [column("name", "Way to a model"), column("state", "State"),
        column("detail", "What happens")], all.doors, { plain: true })),
    section("Files", ["day", "user,model,day", "source"].map(files)),
  ];
}

async function usersView() {
  const [users, used] = await Promise.all([call("users"), report("user")]);
  const sums = new Map(used.map((row) => [row.user_id, row]));
  const rows = users.map((row) => ({ total_tokens: 0, ...row, ...sums.get(row.user_id) }));
  return [
    userTable(rows, [figures("total_tokens", "Tokens"), ...costColumn(rows)],
      { search: "Search users, groups, policies", beside: periodPicker() }),
    files("user"),
  ];
}

const useView = (title, by, key, name) => async () => {
  const rows = await report(by), label = (row) => row[name] || row[key] || `no ${by}`;
  return [
    table(title, [column(key, title.slice(0, -1), label, label), ...useColumns(rows)], rows, {
      search: `Search ${title.toLowerCase()}`, beside: periodPicker(),
      order: { key: "input_tokens", sign: -1 },
    }),
    files(by),
    by === "group" && note("Who is in several groups counts in each of them."),
  ];
};

const poolRows = (pools) =>
  pools.flatMap((pool) => pool.limits.map((limit) => withLimit(pool, limit)));
const poolTable = (rows, options = {}) => table("Pools and their limits", [
  column("pool", "Pool", (row) => link(`#pool=${encodeURIComponent(row.pool)}`, row.pool)),
  column("group", "Group", (row) => row.group || "everyone"), ...limitColumns(),
], rows, { ...nearFirst, ...options });

const poolsView = async () =>
  [poolTable(poolRows(await call("pools")), { search: "Search pools" })];

// Grant, reset, revoke

function actions(who, limits, grants) {
  const those = countable(limits);
  const said = el("p.said.bad", { role: "alert" });
  const change = async (control, method, path, body, done) => {
    control.disabled = true;
    said.textContent = "";
    try {
      await call(path, method, body);
      await route();
      say(done);
    } catch (/** @type {any} */ error) {
      said.textContent = error.message;
      control.disabled = false;
    }
  };
  const limit = select(those.map((one) => [one.limit, one.text]));
  const much = required("10k");
  const [whyMore, whyReset] = [reasonInput(), reasonInput()];
  const checks = those.map((one) => el("input", { type: "checkbox", value: one.limit }));
  return [
    said,
    those.length > 0 && section("Grant or reset", el(".cards",
      fields("Grant more until the limit resets", (control) => change(control, "POST", "grants", {
        ...who, limit: limit.value, amount: much.value.trim(), reason: whyMore.value,
      }, "Granted"), field("Limit", limit), el(".row", field("Amount, such as 10k or $5", much),
        field("Reason", whyMore), el("button.main", "Grant"))),
      fields("Reset use to zero", (control) => {
        const limits = checks.filter((one) => one.checked).map((one) => one.value);
        if (!limits.length) checks[0].focus();
        else change(control, "POST", "resets", { ...who, limits, reason: whyReset.value }, "Reset");
      }, checks.map((check, at) => el("label.check", check, those[at].text)),
      el(".row", field("Reason", whyReset), el("button", "Reset"))))),
    grantTable(grants, limits, (grant, reason, control) => change(control, "DELETE",
      `grants/${encodeURIComponent(grant.id)}`, { reason }, "Revoked")),
  ];
}

async function userView(id) {
  const data = await call(`users/${encodeURIComponent(id)}?language=en`);
  return [
    el("p", link("#users", "All users")),
    el("h1", nameOf(data)),
    note([data.email, data.groups.length && `Groups: ${data.groups.join(", ")}`,
      `Policy: ${data.policy}`].filter(Boolean).join(" · ")),
    userParts(data,
      actions({ user: data.user_id }, data.limits.filter(isOwn), data.grants.filter(isOwn))),
  ];
}

async function poolView(name) {
  const found = (await call("pools")).filter((one) => one.pool === name);
  if (!found.length) throw Object.assign(new Error(`There is no pool "${name}".`), { status: 404 });
  const limits = found.flatMap((one) => one.limits);
  return [
    el("p", link("#pools", "All pools")), el("h1", name), limitCards(limits),
    actions({ pool: name }, limits, found.flatMap((one) => one.grants)),
  ];
}

// The policies editor

const findLine = (lines, head) => lines.findIndex((line) => line.trim() === head);

function addLimit(text, head, limit) {
  const lines = text.trimEnd().split("\n"), wanted = JSON.stringify(limit);
  let at = findLine(lines, head);
  if (at < 0) at = lines.push("", head) - 1;
  const below = lines.slice(at + 1), end = below.findIndex((line) => /^\s*\[/.test(line));
  const place = below.findIndex((line) => /^\s*limits\s*=\s*\[/.test(line));
  if (place < 0 || (end >= 0 && end < place)) lines.splice(at + 1, 0, `limits = [${wanted}]`);
  else lines[at + 1 + place] = below[place].replace(/\[\s*(\]?)/, (_, empty) =>
    `[${wanted}${empty || ", "}`);
  return `${lines.join("\n").trimStart()}\n`;
}

async function policiesView() {
  const [kept, groups] = await Promise.all([call("policies"), report("group").catch(() => [])]);
  let timer, asked = 0, loaded = state.draft?.loaded ?? kept.version;
  const numbers = el("ol", { "aria-hidden": "true" });
  const area = el("textarea", { id: "policies", spellcheck: "false", autocomplete: "off",
    autocapitalize: "off", wrap: "off", "aria-label": "Policies", "aria-describedby": "errors",
    oninput: () => changed(), onscroll: () => (numbers.scrollTop = area.scrollTop) });
  area.value = state.draft?.text ?? kept.policies;
  const result = el("", { id: "errors", role: "status" }), means = el("");
  const replayed = el("", { role: "status" });
  const saved = el("p.said", { id: "saved", role: "status" });
  const versions = kept.versions.filter((one) => one.policies !== kept.policies);
  const save = button("Save", keep, "button.main");

  const scrollToLine = (line) => (area.scrollTop = Math.max(0, (line - 5) * 21));

  function goTo(line) {
    const lines = area.value.split("\n"), end = lines.slice(0, line).join("\n").length;
    area.focus();
    area.setSelectionRange(end - (lines[line - 1] ?? "").length, end);
    scrollToLine(line);
  }

  function show(checked) {
    const errors = checked?.errors ?? [];
    fill(numbers, area.value.split("\n").map((_, at) =>
      el(errors.some((one) => one.line === at + 1) ? "li.bad" : "li", at + 1)));
    numbers.scrollTop = area.scrollTop;
    save.disabled = !checked || errors.length > 0 || area.value === kept.policies;
    if (!checked) return; // until the server has looked at it
    area.setAttribute("aria-invalid", String(errors.length > 0));
    fill(result, errors.length ? el("ul.errors", errors.map((one) => el("li.bad",
      one.line && [button(`Line ${one.line}`, () => goTo(one.line)), " "],
      `${one.where}: ${one.given}`, one.allowed && `; allowed: ${one.allowed}`)))
      : el("p.good", "No errors. ", area.value === kept.policies
        ? "This is what is in force." : "Save puts it in force."));
    if (errors.length) return;
    fill(means,
      checked.unmatched.length > 0 &&
        el("p.said.bad", `Nobody is meant by: ${checked.unmatched.join(", ")}`),
      table("What each table means", [
        column("table", "Table", (row) => el("code", row.table)),
        column("limits", "Limits", (row) => row.limits.join("; ")),
        figures("users", "Users"),
      ], checked.summary, { plain: true }));
  }

  const failed = (error) => error.status === 409 ? error.data
    : { failed: true, errors: [{ where: "The server", given: error.message }] };
  const ask = (path, method, more) =>
    call(`policies${path}`, method, { policies: area.value, ...more }).catch(failed);

  function changed() {
    const turn = ++asked;
    const same = area.value === kept.policies;
    if (same) [loaded, saved.textContent] = [kept.version, ""];
    state.draft = same ? null : { text: area.value, loaded };
    show(null);
    clearTimeout(timer);
    const check = async () => {
      const checked = await ask("/check", "POST");
      if (turn !== asked || !area.isConnected) return; // typed on meanwhile, or gone elsewhere
      show(checked);
      if (checked.failed) timer = setTimeout(check, RETRY_AFTER);
    };
    timer = setTimeout(check, CHECK_AFTER);
  }

  function put(text) {
    area.value = text;
    changed();
  }

  async function keep() {
    save.disabled = true;
    const answer = await ask("", "PUT", { version: loaded });
    if (answer.errors?.length) show(answer);
    else if (answer.detail) { // somebody else has saved meanwhile
      Object.assign(kept, answer);
      loaded = kept.version;
      changed();
      fill(saved, answer.detail,
        " Save again to replace that text, or discard your changes to load it.");
    } else {
      state.draft = null;
      await route();
      fill(byId("saved"), "Saved. It is in force from now on.");
      byId("policies").focus();
    }
  }

  async function simulate() {
    fill(replayed, note("Replaying …"));
    const found = await ask("/simulate", "POST", { days: Number(days.value) });
    if (found.errors.length) show(found);
    fill(replayed, !found.errors.length && [
      el("p", `Of ${number(found.requests)} requests in ${number(found.days)} days, ${
        number(found.refused)} would have been refused.`, found.cost_saved_usd > 0 &&
        ` That would have saved ${money(found.cost_saved_usd)}.`),
      table("Who would have been refused", [
        column("email", "User", userLink), figures("refused", "Refused"), column("limit", "Limit"),
        times("first_at", "First"), times("last_at", "Last"), costs("cost_saved_usd", "Saved"),
      ], found.users, { order: { key: "refused", sign: -1 } })]);
  }

  const kind = select([["group"], ["user"], ["role"], ["pool"]]);
  const name = required("Students", { list: "names" }), limit = required("50k tokens/day");
  const days = required("", { type: "number", min: 1, max: 400, value: 30 });
  const version = select(versions.map((one, at) =>
    [at, [when(one.saved_at), one.saved_by].filter(Boolean).join(", ")]));
  const add = () => {
    const who = name.value.trim();
    const head = `[${kind.value}.${/^[\w-]+$/.test(who) ? who : JSON.stringify(who)}]`;
    put(addLimit(area.value, head, limit.value.trim()));
    scrollToLine(findLine(area.value.split("\n"), head) + 1);
    limit.value = "";
  };
  changed();
  return [
    fields("Add a limit", add,
      list(["Say who: a group, a user’s e-mail, a role, or a pool.",
        "Write the limit, such as 50k tokens/day, $20/month or 30 requests/hour.",
        "Add it to the text, see below what it means, and save."], "ol.note"),
      el(".row", el("label", "For", kind), field("Name", name), field("Limit", limit),
        el("button", "Add to the text"))),
    el("datalist", { id: "names" }, groups.filter((row) => row.group_name).map((row) =>
      el("option", { value: row.group_name }))),
    section("Text", el(".editor", numbers, area), result, el(".row", save,
      versions.length > 0 && [el("label", "Earlier versions", version),
        button("Load this version", () => put(versions[version.value].policies))],
      button("Discard changes", () => put(kept.policies))),
    saved),
    section("What it means", means),
    section("Simulate", note("Replays what is on record against the text above."),
      form("form.row", simulate, el("label", "Days", days), el("button", "Simulate")),
      replayed),
  ];
}

// Where to go, and how to ask

const VIEWS = {
  overview: ["Overview", overview], users: ["Users", usersView],
  groups: ["Groups", useView("Groups", "group", "group_id", "group_name")],
  pools: ["Pools", poolsView], models: ["Models", useView("Models", "model", "model_id")],
  policies: ["Policies", policiesView], me: ["My use", myView],
};
const DETAILS = { user: ["users", userView], pool: ["pools", poolView] };

async function call(path, method = "GET", body = undefined) {
  const token = stored("token");
  const answer = await fetch(BASE + path, {
    method, cache: "no-store",
    headers: { Accept: "application/json", "Content-Type": "application/json",
      ...(token && { Authorization: `Bearer ${token}` }) },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  const data = await answer.json().catch(() => ({}));
  if (answer.ok || data.errors) return data;
  const said = typeof data.detail === "string" ? data.detail : `${answer.status}`;
  throw Object.assign(new Error(said), { status: answer.status, data });
}

async function route(event) {
  const main = byId("main"), nav = byId("nav"), turn = ++state.turn;
  main.setAttribute("aria-busy", "true");
  tag = chooseLanguage();
  let parts;
  try {
    state.me ??= await call(`me?language=${tag}`);
    const admin = state.me?.role === "admin", [name, id] = location.hash.slice(1).split("=");
    const [view, detail] = !admin ? ["me"] : id && Object.hasOwn(DETAILS, name) ? DETAILS[name]
      : [Object.hasOwn(VIEWS, name) ? name : "overview"];
    if (view !== "me") tag = "en";
    nav.hidden = !admin;
    fill(nav, Object.entries(VIEWS).map(([key, [title]]) =>
      el("a", { href: `#${key}`, "aria-current": key === view && "page" }, title)));
    const [title, show] = VIEWS[view];
    parts = detail ? await detail(decodeURIComponent(id))
      : [view !== "me" && el("h1", title), await show()];
  } catch (/** @type {any} */ error) {
    parts = [el("h1", t("title")), error.status === 401 ? link(`${HOME}auth`, t("sign_in")) : [
      el("p.said.bad", { role: "alert" }, state.me && error.status === 404 ? error.message
        : `${t("failed")} (${error.message})`), button(t("refresh"), () => route())]];
  }
  if (turn !== state.turn) return; // gone elsewhere meanwhile
  fill(inLanguage(main), parts);
  main.removeAttribute("aria-busy");
  document.title = main.querySelector("h1").textContent;
  if (event) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
}

function start() {
  languages = JSON.parse(byId("languages").textContent);
  tag = chooseLanguage();
  inLanguage(document.documentElement);
  Object.assign(byId("back"), { textContent: t("back"), href: HOME });
  addEventListener("hashchange", route);
  addEventListener("beforeunload", (event) => state.draft !== null && event.preventDefault());
  return route();
}

followTheme();
addEventListener("storage", followTheme);
addEventListener("DOMContentLoaded", start);
