"use strict";
// The usage page: what is left, who is near a limit, and what to do about it. Names of users,
// groups and models are whatever somebody chose: they become text nodes, never HTML.

const BASE = location.pathname.replace(/\/+$/, "") + "/api/";
const SHOWN_ROWS = 25;
const CHECK_AFTER = 400; // ms without a key
const PERIODS = { month: "This month", 7: "7 days", 30: "30 days", 90: "90 days", 365: "A year" };
const state = { me: null, soft: 80, period: "month", draft: null, turn: 0 };
let languages, tag;

function stored(key) {
  try {
    return localStorage.getItem(key) || "";
  } catch { // a browser that keeps nothing
    return "";
  }
}

function followTheme() {
  const theme = stored("theme");
  const chosen = /dark/.test(theme) ? "dark" : /^(light|her)$/.test(theme) ? "light" : "system";
  document.documentElement.dataset.theme = chosen;
}

// Words and numbers

function chooseLanguage() {
  for (const wish of [stored("locale"), ...navigator.languages]) {
    const parts = wish.toLowerCase().replaceAll("_", "-").split("-");
    for (let length = parts.length; length; length--) {
      const start = parts.slice(0, length).join("-");
      const known = languages.aliases[start] || start;
      if (Object.hasOwn(languages.words, known)) return known;
    }
  }
  return "en";
}

function t(key, n = 0) {
  const word = languages.words[tag][languages.keys.indexOf(key)];
  return word.replace("{n}", number(n));
}

const number = (value) => new Intl.NumberFormat(`${tag}-u-nu-latn`).format(value ?? 0);

const dollars = (value) =>
  new Intl.NumberFormat(`${tag}-u-nu-latn`, {
    style: "currency", currency: "USD", currencyDisplay: "narrowSymbol",
    ...(value > 0 && value < 0.01 && { maximumSignificantDigits: 2 }),
  }).format(value);

// What has no price has no cost: a zero would say that it was free.
const money = (value) => (value ? dollars(value) : "–");

const isMoney = (limit) => /cost|\$/.test(limit.measure);
const amount = (limit, value) => (isMoney(limit) ? dollars : number)(value ?? 0);

function when(text) {
  if (!text) return "–";
  const at = new Date(text), sameYear = at.getFullYear() === new Date().getFullYear();
  return new Intl.DateTimeFormat(`${tag}-u-nu-latn`, {
    month: "short", day: "numeric", hour: "numeric", minute: "2-digit",
    ...(sameYear ? {} : { year: "numeric" }),
  }).format(at);
}

const day = (text) =>
  new Intl.DateTimeFormat(`${tag}-u-nu-latn`, { day: "numeric", month: "short", timeZone: "UTC" })
    .format(new Date(`${text}T00:00Z`));

// Elements

function el(name, attributes = {}, ...children) {
  const [kind, ...classes] = name.split(".");
  const made = document.createElement(kind || "div");
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value || value === 0) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(3).filter((child) => child || child === 0));
  return made;
}

function svg(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const note = (text) => el("p.note", {}, text);
const say = (text) => (document.getElementById("live").textContent = text);
const button = (text, onclick, kind = "button") => el(kind, { type: "button", onclick }, text);
const section = (title, ...parts) => [el("h2", {}, title), ...parts];
const field = (text, input) => el("label.wide", {}, text, input);
// A text that leaves the direction of what is around it alone, whatever is in it.
const own = (...text) => el("bdi", {}, text);
const pairList = (kind, pairs) => el(kind, {}, pairs.map(([name, value]) =>
  el("", {}, el("dt", {}, name), el("dd", {}, own(value)))));
const boxes = (pairs) => pairList("dl.totals", pairs);

function table(caption, columns, rows, { order, search, beside, plain, kind } = {}) {
  // Kinds of columns: text, or "n" for numbers. `show` makes the cell, `value` what it sorts by.
  let shown = SHOWN_ROWS, sorted = order, wanted = "";
  const value = (column, row) => (column.value || ((from) => from[column.key]))(row) ?? "";
  const texts = new Map(rows.map((row) =>
    [row, columns.map((column) => value(column, row)).join(" ").toLowerCase()]));
  const body = el("tbody", { role: "rowgroup" });
  const count = note("");
  const filled = (column, row) => {
    const shows = column.show ? column.show(row) : String(row[column.key] ?? "");
    return shows === "" || shows.length === 0 ? "" : own(shows);
  };
  const compare = (one, other) =>
    typeof one === "number" && typeof other === "number"
      ? one - other : String(one).localeCompare(String(other), tag, { numeric: true });

  function fill() {
    let found = rows.filter((row) => texts.get(row).includes(wanted));
    if (sorted) {
      const column = columns.find((one) => one.key === sorted.key);
      found = found.toSorted((a, b) => sorted.sign * compare(value(column, a), value(column, b)));
    }
    body.replaceChildren(...found.slice(0, shown).map((row) =>
      el(`tr${kind && kind(row) ? `.${kind(row)}` : ""}`, { role: "row" },
        columns.map((column, at) =>
          el((at ? "td" : "th") + (column.kind === "n" ? ".n" : ""), {
            "data-column": column.name, role: at ? "cell" : "rowheader", scope: at ? "" : "row",
          }, filled(column, row))))));
    heads.forEach((head, at) => {
      const on = sorted && columns[at].key === sorted.key;
      if (on) head.setAttribute("aria-sort", sorted.sign > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    count.replaceChildren();
    if (!found.length) count.append(t("nothing"));
    if (found.length > shown) {
      count.append(`${number(shown)} of ${number(found.length)} `,
        button("Show all", () => { shown = Infinity; fill(); }));
    }
    return found.length;
  }

  function sort(column) {
    const sign = sorted?.key === column.key ? -sorted.sign : column.kind === "n" ? -1 : 1;
    sorted = { key: column.key, sign };
    fill();
    say(`${column.name}: ${sign > 0 ? "ascending" : "descending"}`);
  }

  const heads = columns.map((column) =>
    el(`th${column.kind === "n" ? ".n" : ""}`, { scope: "col", role: "columnheader" },
      plain ? column.name : button(column.name, () => sort(column))));
  const input = search && el("input", {
    type: "search", autocomplete: "off", oninput: () => {
      wanted = input.value.trim().toLowerCase();
      say(`${number(fill())} found`);
    },
  });
  fill();
  return [
    (input || beside) && el(".row", {}, beside, input && field(search, input)),
    el(plain ? "table.plain" : "table", { role: "table" },
      el("caption", {}, el("span.unseen", {}, caption)),
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads)), body),
    count,
  ];
}

const costColumn = (key, name) =>
  ({ key, name, kind: "n", show: (row) => money(row[key]) });

// Columns of use: a cost only where anything has a price.
function useColumns(rows) {
  const columns = [
    { key: "requests", name: t("requests") },
    { key: "input_tokens", name: t("input") },
    { key: "output_tokens", name: t("output") },
  ].map((column) => ({ ...column, kind: "n", show: (row) => number(row[column.key]) }));
  const priced = rows.some((row) => row.cost_usd);
  return priced ? [...columns, costColumn("cost_usd", t("cost"))] : columns;
}

// Limits

const atOnce = (limit) => limit.period === "request" || limit.period === "at once";
const shareOf = (limit) => (limit.amount > 0 ? limit.percent ?? 0 : 100);
const kindOf = (limit) =>
  limit.remaining <= 0 && !atOnce(limit) ? "over"
    : shareOf(limit) >= state.soft && !atOnce(limit) ? "near" : "";
const percent = (limit) =>
  new Intl.NumberFormat(`${tag}-u-nu-latn`, { style: "percent" }).format(shareOf(limit) / 100);
const textOf = (limit) => limit.text || limit.limit || "";
const nearest = (limits) =>
  limits.filter((limit) => !atOnce(limit))
    .reduce((most, limit) => (most && shareOf(most) >= shareOf(limit) ? most : limit), null);

function meter(limit) {
  const total = Math.max(limit.amount, 1e-9);
  const parts = [limit.used, limit.reserved].map((value) => {
    const part = el("i");
    part.style.width = `${Math.min(100, (100 * (value || 0)) / total)}%`;
    return part;
  });
  if (!(limit.amount > 0)) parts[0].style.width = "100%";
  return el(".meter", {
    role: "meter", "aria-label": textOf(limit), "aria-valuemin": 0, "aria-valuemax": 100,
    "aria-valuenow": Math.min(100, Math.round(shareOf(limit))),
    "aria-valuetext": `${t("used")} ${amount(limit, limit.used)}, ${t("left")} ${
      amount(limit, limit.remaining)}`,
  }, parts);
}

function limitCard(limit) {
  const kind = kindOf(limit);
  const pairs = [
    [t("used"), [own(amount(limit, limit.used)), " ", own(`(${percent(limit)})`)]],
    limit.reserved > 0 && [t("reserved"), amount(limit, limit.reserved)],
    [t("left"), amount(limit, Math.max(0, limit.remaining))],
    limit.granted > 0 && [t("grants"), amount(limit, limit.granted)],
    [t("resets"), when(limit.reset_at)],
  ].filter(Boolean);
  return el(`li.card${kind && `.${kind}`}`, {},
    el("h2", {}, own(textOf(limit)), " ",
      limit.scope !== "user" && el("span.tag", {}, t("shared"), ": ", own(limit.scope)), " ",
      kind === "over" && el("span.tag.bad", {}, t("reached"))),
    meter(limit),
    pairList("dl", pairs));
}

const limitCards = (limits) => [
  el("ul.cards", {}, limits.filter((limit) => !atOnce(limit)).map(limitCard)),
  el("ul", {}, limits.filter(atOnce).map((limit) => el("li", {}, own(textOf(limit))))),
];

function everyDay(rows, from, zone) {
  // Days without any use are days as well. "sv" writes dates as ISO has them.
  const iso = (instant) => new Date(instant).toLocaleDateString("sv", { timeZone: zone });
  const by = new Map(rows.map((row) => [row.day, row])), days = [];
  const first = [iso(from), ...by.keys()].toSorted()[0], last = [iso(Date.now()), ...by.keys()];
  const end = Date.parse(last.toSorted().at(-1));
  for (let at = Date.parse(first); at <= end && days.length < 400; at += 864e5) {
    const name = new Date(at).toISOString().slice(0, 10);
    days.push(by.get(name) || { day: name, requests: 0, input_tokens: 0, output_tokens: 0 });
  }
  return days;
}

function dayChart(days) {
  const width = Math.min(document.getElementById("main").clientWidth || 600, 1088), height = 190;
  const left = 44, bottom = 22, room = width - left, tall = height - bottom - 8;
  const sum = (one) => one.input_tokens + one.output_tokens;
  const most = Math.max(...days.map(sum), 1), step = room / Math.max(days.length, 1);
  const short = new Intl.NumberFormat(`${tag}-u-nu-latn`, { notation: "compact" });
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", direction: "ltr",
    "aria-label": `${t("by_day")}: ${t("total")} ${
      number(days.reduce((all, one) => all + sum(one), 0))} ${t("tokens")}` });
  for (const part of [0, 0.5, 1]) {
    const y = 8 + tall * (1 - part);
    chart.append(svg("line", { class: "grid", x1: left, x2: width, y1: y, y2: y }),
      svg("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, short.format(most * part)));
  }
  const every = Math.ceil(days.length / Math.max(2, Math.floor(room / 75)));
  days.forEach((one, at) => {
    const x = left + at * step, low = (tall * one.input_tokens) / most;
    const high = (tall * one.output_tokens) / most, wide = Math.max(step - 2, 1);
    chart.append(svg("g", {},
      svg("title", {}, `${day(one.day)}: ${number(sum(one))} ${t("tokens")}`),
      svg("rect", { x, y: 8, width: step, height: tall, fill: "transparent" }),
      svg("rect", { class: "first", x, y: 8 + tall - low, width: wide, height: low }),
      svg("rect", { class: "second", x, y: 8 + tall - low - high, width: wide, height: high })));
    if (at % every === 0) {
      const last = at + every >= days.length && x > width - 60;
      chart.append(svg("text", { x: last ? width : x, y: height - 6,
        "text-anchor": last ? "end" : "start" }, day(one.day)));
    }
  });
  return [
    el("figure", {}, chart, el("figcaption.note", {}, el("span.key.first"), t("input"), "  ",
      el("span.key.second"), t("output"))),
    el("details", {}, el("summary", {}, `${t("by_day")}: ${t("tokens")}`),
      table(t("by_day"),
        [{ key: "day", name: t("day"), show: (row) => day(row.day) }, ...useColumns(days)],
        days.filter((row) => row.requests), { order: { key: "day", sign: -1 } })),
  ];
}

// A user's limits and use, for the user or for an administrator

function userParts(data, afterLimits = []) {
  const replies = data.replies || [], grants = (data.grants || []).filter((one) => one.holds);
  const mark = (row) =>
    row.running ? ` (${t("running")})` : row.estimated ? ` (${t("estimated")})` : "";
  const columns = [
    { key: "at", name: t("time"), show: (row) => when(row.at) },
    { key: "model", name: t("model") },
    ...useColumns(replies).slice(1),
  ];
  columns[3].show = (row) => number(row.output_tokens) + mark(row);
  return [
    data.exempt && el("p.said", {}, t("exempt")),
    data.limits.length ? limitCards(data.limits) : el("p", {}, t("no_limits")),
    afterLimits,
    grants.length > 0 && section(t("grants"), grantTable(grants, data.limits)),
    data.days && section(t("by_day"), dayChart(everyDay(data.days, data.since, data.timezone))),
    data.month && section(t("by_model"), table(t("by_model"),
      [{ key: "model", name: t("model") }, ...useColumns(data.month)], data.month)),
    data.replies && section(t("replies"), table(t("replies"), columns, replies),
      data.replies_left_out > 0 && note(t("more", data.replies_left_out))),
  ];
}

function grantTable(grants, limits, revoke) {
  const granted = (row) => {
    const one = limits.find((limit) => ["measure", "period", "model"].every((key) =>
      limit[key] === row[key]) && (limit.scope === "user") === (row.scope === "user"));
    return one ? textOf(one) : `${row.measure.replace("_", " ")}/${row.period}`;
  };
  const columns = [
    { key: "limit", name: t("limit"), value: granted, show: granted },
    { key: "amount", name: t("amount"), kind: "n", show: (row) => `+${amount(row, row.amount)}` },
    { key: "reason", name: t("reason") },
    { key: "expires_at", name: t("until"), show: (row) => when(row.expires_at) },
  ];
  if (revoke) {
    columns.push({ key: "id", name: "Take back", show: (row) => {
      const made = button("Revoke", () => revoke(row, made));
      made.setAttribute("aria-label", `Revoke ${amount(row, row.amount)} of ${granted(row)}`);
      return made;
    } });
  }
  return table(t("grants"), columns, grants, { plain: true });
}

async function myView() {
  const data = await call(`me?language=${tag}`);
  const again = button(t("refresh"), () => route());
  return [el("h1", {}, t("title")), el(".row", {}, again), userParts(data)];
}

// The administrator's views, in English

const since = () => {
  const from = new Date();
  if (state.period === "month") from.setDate(1);
  else from.setDate(from.getDate() - Number(state.period) + 1);
  const two = (part) => String(part).padStart(2, "0");
  return `${from.getFullYear()}-${two(from.getMonth() + 1)}-${two(from.getDate())}`;
};

const report = (by) => call(`report?by=${by}&since=${since()}`);

function periodPicker() {
  const select = el("select", { onchange: () => { state.period = select.value; route(); } },
    Object.entries(PERIODS).map(([value, name]) =>
      el("option", { value, selected: value === state.period }, name)));
  return el("label", {}, "Period", select);
}

const links = (by, what) =>
  note(["Download ", ["csv", "json"].flatMap((format, at) => [at ? " or " : "",
    el("a", { href: `${BASE}report?by=${by}&since=${since()}&format=${format}`,
      download: `usage-by-${by}.${format}` }, format.toUpperCase())]), ` of ${what}.`]);

const userLink = (row) =>
  el("a", { href: `#user=${encodeURIComponent(row.user_id)}` },
    row.name || row.email || row.user_email || row.user_id);

const limitColumns = [
  { key: "limit", name: "Limit", value: (row) => textOf(row.most || {}),
    show: (row) => row.most ? textOf(row.most) : "no limit" },
  { key: "percent", name: "Used %", kind: "n", value: (row) => row.most ? shareOf(row.most) : -1,
    show: (row) => (row.most ? percent(row.most) : "–") },
  { key: "left", name: "Left", kind: "n", value: (row) => row.most?.remaining ?? Infinity,
    show: (row) => (row.most ? amount(row.most, Math.max(0, row.most.remaining)) : "–") },
  { key: "resets", name: "Resets", value: (row) => row.most?.reset_at,
    show: (row) => when(row.most?.reset_at) },
];
const withNearest = (row) => ({ ...row, most: nearest(row.limits) });
const nearKind = (row) => (row.most ? kindOf(row.most) : "");

function userTable(users, search, beside) {
  const columns = [
    { key: "user", name: "User", value: (row) => `${row.name || ""} ${row.email} ${row.user_id}`,
      show: (row) => [userLink(row), row.exempt && [" ", el("span.tag", {}, "exempt")]] },
    { key: "groups", name: "Groups", value: (row) => (row.groups || []).join(", "),
      show: (row) => (row.groups || []).join(", ") },
    { key: "policy", name: "Policy" },
    ...limitColumns,
  ];
  if (users.some((row) => "tokens" in row)) {
    columns.push({ key: "tokens", name: "Tokens", kind: "n", show: (row) => number(row.tokens) });
    if (users.some((row) => row.cost_usd)) {
      columns.push(costColumn("cost_usd", "Cost"));
    }
  }
  return table("Users, the most used limit of each", columns, users.map(withNearest),
    { search, beside, kind: nearKind, order: { key: "percent", sign: -1 } });
}

async function overview() {
  const [all, days, near, shadow] = await Promise.all([
    call("overview"), report("day"), call("users?near=true"),
    call(`shadow?since=${since()}`).catch(() => []),
  ]);
  const sum = (key) => days.reduce((total, row) => total + (row[key] || 0), 0);
  const over = near.filter((row) => row.limits.some((limit) => kindOf(limit) === "over"));
  return [
    el("h1", {}, "Overview"),
    el(".row", {}, periodPicker()),
    boxes([["Requests", number(sum("requests"))], ["Input tokens", number(sum("input_tokens"))],
      ["Output tokens", number(sum("output_tokens"))], ["Cost", money(sum("cost_usd"))],
      ["Over a limit", number(over.length)], ["Near a limit", number(near.length - over.length)]]),
    all.shadow_mode && el("p.said", {}, "Shadow mode is on: nobody is refused."),
    notices(all),
    section("Near or over a limit", near.length ? userTable(near) : note("Nobody.")),
    section("By day", dayChart(everyDay(days, `${since()}T12:00`, all.timezone))),
    shadow.length > 0 && section("Shadow mode would have refused",
      table("Would-have-been refusals", [
        { key: "at", name: "Time", show: (row) => when(row.at) },
        { key: "email", name: "User", show: userLink }, { key: "model", name: "Model" },
        { key: "limit", name: "Limit" }, { key: "policy", name: "Policy" },
      ], shadow, { search: "Search refusals" })),
    section("Everything as a file", links("day", "each day"),
      links("user,model,day", "each user, model and day"), links("source", "each source")),
  ];
}

const notices = (all) => (all.notices || []).length > 0 && [
  el(".said.bad", {}, el("strong", {}, "Names in the policies"), el("ul", {},
    all.notices.map((text) => el("li", {}, text))),
  el("a", { href: "#policies" }, "Correct the policies")),
];

async function usersView() {
  const [users, used] = await Promise.all([call("users"), report("user")]);
  const byId = new Map(used.map((row) => [row.user_id, row]));
  const rows = users.map((row) => {
    const use = byId.get(row.user_id) || {};
    return { ...row, tokens: use.total_tokens || 0, cost_usd: use.cost_usd };
  });
  return [el("h1", {}, "Users"),
    userTable(rows, "Search users, groups, policies", periodPicker()), links("user", "all users")];
}

const useView = (title, by, column) => async () => {
  const rows = await report(by);
  return [el("h1", {}, title), table(title, [column, ...useColumns(rows)], rows, {
    search: `Search ${title.toLowerCase()}`, beside: periodPicker(),
    order: { key: "input_tokens", sign: -1 },
  }),
    links(by, `all ${title.toLowerCase()}`),
    by === "group" && note("Who is in several groups counts in each of them.")];
};

async function poolsView() {
  const pools = await call("pools");
  const columns = [
    { key: "pool", name: "Pool",
      show: (row) => el("a", { href: `#pool=${encodeURIComponent(row.pool)}` }, row.pool) },
    { key: "group", name: "Group" }, ...limitColumns,
  ];
  const rows = pools.flatMap((pool) => pool.limits.map((limit) => ({ ...pool, most: limit })));
  return [el("h1", {}, "Pools"), note("One counter for all members of each."),
    table("Pools and their limits", columns, rows,
      { search: "Search pools", kind: nearKind, order: { key: "percent", sign: -1 } })];
}

// Grant, reset, revoke

function actions(who, limits, grants) {
  const countable = limits.filter((limit) => !atOnce(limit));
  const holding = grants.filter((grant) => grant.holds && grant.kind !== "revoke");
  const said = el("p.said", { role: "status" });
  const busy = async (control, work, done) => {
    control.disabled = true;
    try {
      await work();
      await route();
      say(done);
      document.getElementById("done").textContent = done;
    } catch (error) {
      said.textContent = error.message;
      said.classList.add("bad");
      control.disabled = false;
    }
  };
  const select = el("select", { name: "limit" }, countable.map((limit) =>
    el("option", { value: limit.limit }, textOf(limit))));
  const much = el("input", { required: true, placeholder: "10k", name: "amount" });
  const why = () => el("input", { required: true, maxlength: 200, name: "reason" });
  const [grantWhy, resetWhy] = [why(), why()];
  const give = el("button.main", {}, "Grant"), zero = el("button", {}, "Reset");
  const checks = countable.map((limit) => el("input", { type: "checkbox", value: limit.limit }));
  const grantForm = el("form", { onsubmit: (event) => {
    event.preventDefault();
    const body = { ...who, limit: select.value, amount: much.value.trim(), reason: grantWhy.value };
    busy(give, () => call("grants", { method: "POST", body }), `Granted ${much.value}.`);
  } }, el("fieldset", {}, el("legend", {}, "Grant more until the limit resets"),
    field("Limit", select), el(".row", {}, field("Amount, such as 10k or $5", much),
      field("Reason", grantWhy), give)));
  const resetForm = el("form", { onsubmit: (event) => {
    event.preventDefault();
    const chosen = checks.filter((check) => check.checked).map((check) => check.value);
    if (!chosen.length) return checks[0].focus();
    const body = { ...who, limits: chosen, reason: resetWhy.value };
    return busy(zero, () => call("resets", { method: "POST", body }), "Reset.");
  } }, el("fieldset", {}, el("legend", {}, "Reset: what is used now no longer counts"),
    checks.map((check, at) => el("label.check", {}, check, textOf(countable[at]))),
    el(".row", {}, field("Reason", resetWhy), zero)));
  const revoke = (grant, control) => busy(control,
    () => call(`grants/${encodeURIComponent(grant.id)}`, { method: "DELETE" }), "Revoked.");
  return [
    el("p.said", { id: "done", role: "status" }), said,
    countable.length > 0 && section("Grant or reset", el(".cards", {}, grantForm, resetForm)),
    holding.length > 0 && section("Granted", grantTable(holding, limits, revoke)),
  ];
}

async function userView(id) {
  const data = await call(`users/${encodeURIComponent(id)}?language=en`);
  const who = [data.email, (data.groups || []).join(", "), data.policy].filter(Boolean);
  return [
    el("p", {}, el("a", { href: "#users" }, "All users")),
    el("h1", {}, data.name || data.email || data.user_id), note(who.join(" · ")),
    userParts({ ...data, grants: [] },
      actions({ user: data.user_id }, data.limits.filter((one) => one.scope === "user"),
        (data.grants || []).filter((one) => one.scope === "user"))),
  ];
}

async function poolView(name) {
  const found = (await call("pools")).filter((one) => one.pool === name);
  if (!found.length) throw new Error(`There is no pool ${name}.`);
  const limits = found.flatMap((one) => one.limits);
  return [
    el("p", {}, el("a", { href: "#pools" }, "All pools")), el("h1", {}, name),
    limitCards(limits),
    actions({ pool: name }, limits, found.flatMap((one) => one.grants || [])),
  ];
}

// The policies editor

const key = (name) => (/^[\w-]+$/.test(name) ? name : JSON.stringify(name));

function addTable(text, kind, name, limit) {
  const head = `[${kind}.${key(name)}]`;
  const lines = text.split("\n");
  const at = lines.findIndex((line) => line.trim() === head);
  const wanted = JSON.stringify(limit);
  if (at < 0) {
    const before = text.trim() ? `${text.trimEnd()}\n\n` : "";
    return [`${before}${head}\nlimits = [${wanted}]\n`, before.split("\n").length];
  }
  for (let next = at + 1; next < lines.length && !/^\s*\[/.test(lines[next]); next++) {
    const list = /^(\s*limits\s*=\s*\[)(.*)$/.exec(lines[next]);
    if (list) {
      lines[next] = list[1] + wanted + (list[2].trim() === "]" ? "" : ", ") + list[2];
      return [lines.join("\n"), next + 1];
    }
  }
  lines.splice(at + 1, 0, `limits = [${wanted}]`);
  return [lines.join("\n"), at + 2];
}

function lineOf(error, lines) {
  // Where the text says what an error names: its line, else the words that it quotes.
  const said = error.line || /line (\d+)/.exec(error.where)?.[1];
  if (said) return Number(said);
  const head = /^\[.*\]/.exec(error.where)?.[0];
  const at = lines.findIndex((line) => head && line.trim().startsWith(head));
  const quoted = /"((?:[^"\\]|\\.)+)"/.exec(error.given)?.[1];
  const next = lines.findIndex((line, one) => one > at && /^\s*\[/.test(line));
  const part = lines.slice(0, at < 0 || next < 0 ? undefined : next);
  const key = /\] (\w+)/.exec(error.where)?.[1];
  for (const word of [quoted, key]) {
    const found = word ? part.findIndex((line, one) => one >= at && line.includes(word)) : -1;
    if (found >= 0) return found + 1;
  }
  return at + 1 || null;
}

async function policiesView() {
  const [kept, groups] = await Promise.all([call("policies"), report("group").catch(() => [])]);
  let timer, asked = 0;
  const numbers = el("ol", { "aria-hidden": "true" });
  const area = el("textarea", { id: "policies", spellcheck: "false", autocomplete: "off",
    autocapitalize: "off", wrap: "off", "aria-label": "Policies", "aria-describedby": "errors",
    oninput: () => changed(), onscroll: () => (numbers.scrollTop = area.scrollTop) });
  area.value = state.draft ?? kept.policies;
  const result = el("", { id: "errors", role: "status", "aria-live": "polite" });
  const means = el(""), replayed = el("", { role: "status" });
  const done = el("p.said", { role: "status" });
  const save = button("Save", saveText, "button.main");

  function goTo(line) {
    const start = area.value.split("\n").slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
    const end = area.value.indexOf("\n", start);
    area.focus();
    area.setSelectionRange(start, end < 0 ? area.value.length : end);
    area.scrollTop = Math.max(0, (line - 5) * 21);
  }

  function numberLines(errors) {
    const bad = new Set(errors.map((error) => error.line));
    const count = area.value.split("\n").length;
    numbers.replaceChildren(...Array.from({ length: count }, (_, at) =>
      el(bad.has(at + 1) ? "li.bad" : "li", {}, at + 1)));
    numbers.scrollTop = area.scrollTop;
  }

  function showErrors(found) {
    const lines = area.value.split("\n");
    const errors = found.map((error) => ({ ...error, line: lineOf(error, lines) }));
    numberLines(errors);
    area.setAttribute("aria-invalid", String(errors.length > 0));
    save.disabled = errors.length > 0 || area.value === kept.policies;
    result.replaceChildren(...(errors.length ? [
      el("p.bad", {}, `${number(errors.length)} ${errors.length > 1 ? "errors" : "error"}`),
      el("ul.errors", {}, errors.map((error) => el("li", {},
        error.line && [button(`Line ${error.line}`, () => goTo(error.line)), " "],
        el("strong", {}, error.where || ""), ": ", el("code", {}, error.given || ""),
        error.allowed && `; allowed: ${error.allowed}`))),
    ] : [el("p.good", {}, area.value === kept.policies
      ? "No errors. This is what is in force." : "No errors. Save puts it in force.")]));
  }

  function showMeaning(checked) {
    const names = checked.unmatched || [];
    means.replaceChildren(...table("What each table means", [
      { key: "table", name: "Table", show: (row) => el("code", {}, row.table) },
      { key: "limits", name: "Limits", value: (row) => [row.limits].flat().join(", "),
        show: (row) => [row.limits].flat().filter(Boolean).join("; ") || row.text || "" },
      { key: "users", name: "Users", kind: "n",
        show: (row) => (typeof row.users === "number" ? number(row.users) : "–") },
    ], checked.summary || [], { plain: true }).filter(Boolean),
    ...(names.length ? [el("p.said.bad", {}, `Nobody is meant by: ${names.join(", ")}`)] : []));
  }

  async function check() {
    const turn = ++asked, text = area.value;
    try {
      const checked = await call("policies/check", { method: "POST", body: { policies: text } });
      if (turn !== asked) return; // typed on meanwhile
      showErrors(checked.errors || []);
      if (!(checked.errors || []).length) showMeaning(checked);
    } catch (error) {
      if (turn === asked) result.replaceChildren(el("p.bad", {}, error.message));
    }
  }

  function changed() {
    state.draft = area.value === kept.policies ? null : area.value;
    save.disabled = true; // until it is checked
    done.textContent = "";
    numberLines([]);
    clearTimeout(timer);
    timer = setTimeout(check, CHECK_AFTER);
  }

  function put(text, line) {
    area.value = text;
    changed();
    if (line) goTo(line);
  }

  async function saveText() {
    save.disabled = true;
    const answer = await call("policies", { method: "PUT", body: { policies: area.value } })
      .catch((error) => ({ errors: [{ where: "Saving", given: error.message }] }));
    if (answer.errors?.length) {
      showErrors(answer.errors);
      return;
    }
    state.draft = null;
    await route();
    document.getElementById("saved").textContent = "Saved. It is in force from now on.";
    document.getElementById("policies").focus();
  }
  done.id = "saved";

  async function simulate(event) {
    event.preventDefault();
    replayed.replaceChildren(note("Replaying …"));
    try {
      const body = { policies: area.value, days: Number(days.value) };
      const found = await call("policies/simulate", { method: "POST", body });
      const errors = found.errors || [], users = found.users || [];
      if (errors.length) showErrors(errors);
      replayed.replaceChildren(...(errors.length ? [] : [
        el("p", {}, `Of ${number(found.requests)} requests in ${number(found.days)} days, ${
          number(found.refused)} would have been refused.`,
        found.cost_saved_usd > 0 && ` That would have saved ${money(found.cost_saved_usd)}.`),
        ...(users.length ? table("Who would have been refused", [
          { key: "email", name: "User", show: userLink },
          { key: "refused", name: "Refused", kind: "n", show: (row) => number(row.refused) },
          { key: "limit", name: "Limit" },
          { key: "first_at", name: "First", show: (row) => when(row.first_at) },
          { key: "last_at", name: "Last", show: (row) => when(row.last_at) },
          costColumn("cost_saved_usd", "Saved"),
        ], users, { order: { key: "refused", sign: -1 } }).filter(Boolean) : []),
      ]));
    } catch (error) {
      replayed.replaceChildren(el("p.bad", {}, error.message));
    }
  }

  const kind = el("select", {}, ["group", "user", "role", "pool"].map((name) =>
    el("option", {}, name)));
  const name = el("input", { required: true, list: "names", placeholder: "Students" });
  const limit = el("input", { required: true, placeholder: "50k tokens/day" });
  const days = el("input", { type: "number", min: 1, max: 400, value: 30, required: true });
  const versions = kept.versions || [];
  const version = el("select", {}, versions.map((one, at) =>
    el("option", { value: at }, [when(one.saved_at), one.saved_by].filter(Boolean).join(", "))));
  const add = el("form", { onsubmit: (event) => {
    event.preventDefault();
    put(...addTable(area.value, kind.value, name.value.trim(), limit.value.trim()));
    limit.value = "";
  } }, el("fieldset", {}, el("legend", {}, "Add a limit"),
    el("ol.steps.note", {}, ["Say who: a group, a user’s e-mail, a role, or a pool.",
      "Write the limit, such as 50k tokens/day, $20/month or 30 requests/hour.",
      "Add it to the text, see below what it means, and save."].map((step) =>
      el("li", {}, step))),
    el(".row", {}, el("label", {}, "For", kind), field("Name", name), field("Limit", limit),
      el("button", {}, "Add to the text"))));
  const names = el("datalist", { id: "names" }, groups.filter((row) => row.group_name)
    .map((row) => el("option", { value: row.group_name })));

  numberLines([]);
  save.disabled = true;
  if (state.draft === null) {
    showErrors([]);
    showMeaning(kept);
  }
  check();
  return [
    el("h1", {}, "Policies"), done, add, names,
    section("Text"), el(".editor", {}, numbers, area), result,
    el(".row", {}, save, versions.length > 0 && el("label", {}, "Earlier versions", version),
      versions.length > 0 && button("Load this version", () =>
        put(versions[version.value].policies)),
      state.draft !== null && button("Discard changes", () => { state.draft = null; route(); })),
    section("What it means", means),
    section("Simulate", note("Replays what is on record against the text above."),
      el("form.row", { onsubmit: simulate }, el("label", {}, "Days", days),
        el("button", {}, "Simulate")), replayed),
  ];
}

async function systemView() {
  const status = await call("overview");
  const texts = [["Version", status.version], ["Open WebUI", status.open_webui],
    ["Ledger", status.ledger], ["Workers", status.workers], ["Time zone", status.timezone]];
  const doors = status.doors || status.paths || [], checks = status.checks || [];
  return [
    el("h1", {}, "System"),
    boxes(texts.filter(([, value]) => value || value === 0).map(([name, value]) =>
      [name, String(value)])),
    checks.length > 0 && section("Checks", el("ul", {}, checks.map((check) => el("li", {},
      el(check.ok ? "span.good" : "span.bad", {}, check.ok ? "OK " : "Look here: "),
      check.text)))),
    doors.length > 0 && section("Ways to a model", table("Ways to a model", [
      { key: "name", name: "Path", show: (row) => el("code", {}, row.name) },
      { key: "state", name: "State" }, { key: "detail", name: "What happens" },
    ], doors, { plain: true })),
    notices(status),
  ];
}

// Where to go, and how to ask

const ADMIN_VIEWS = {
  overview: ["Overview", overview],
  users: ["Users", usersView],
  groups: ["Groups", useView("Groups", "group", { key: "group_name", name: "Group",
    value: (row) => row.group_name || row.group_id || "no group",
    show: (row) => row.group_name || row.group_id || "no group" })],
  pools: ["Pools", poolsView],
  models: ["Models", useView("Models", "model", { key: "model_id", name: "Model" })],
  policies: ["Policies", policiesView],
  system: ["System", systemView],
  me: ["My use", myView],
};
const DETAIL_VIEWS = { user: ["users", userView], pool: ["pools", poolView] };

async function call(path, { method = "GET", body } = {}) {
  const headers = { Accept: "application/json" };
  if (stored("token")) headers.Authorization = `Bearer ${stored("token")}`;
  if (body) headers["Content-Type"] = "application/json";
  const answer = await fetch(BASE + path, {
    method, headers, cache: "no-store", ...(body && { body: JSON.stringify(body) }),
  });
  const data = await answer.json().catch(() => ({}));
  if (answer.ok || data.errors) return data;
  const said = typeof data.detail === "string" ? data.detail : `${answer.status}`;
  throw Object.assign(new Error(said), { status: answer.status });
}

function navigation(current) {
  const nav = document.getElementById("nav");
  nav.hidden = false;
  nav.replaceChildren(...Object.entries(ADMIN_VIEWS).map(([name, [title]]) =>
    el("a", { href: `#${name}`, "aria-current": name === current && "page" }, title)));
}

async function route(event) {
  const main = document.getElementById("main"), turn = ++state.turn;
  main.setAttribute("aria-busy", "true");
  tag = chooseLanguage();
  try {
    state.me ??= await call(`me?language=${tag}`);
    state.soft = state.me.soft_limit_percent || state.soft;
    const admin = state.me.role === "admin";
    const [name, id] = location.hash.slice(1).split("=");
    const detail = admin && id && Object.hasOwn(DETAIL_VIEWS, name) && DETAIL_VIEWS[name];
    const view = admin && Object.hasOwn(ADMIN_VIEWS, name) ? name : admin ? "overview" : "me";
    if (admin) navigation(detail ? detail[0] : view);
    const language = view === "me" && !detail ? tag : "en";
    tag = language;
    main.lang = language;
    main.dir = languages.rtl.includes(language) ? "rtl" : "ltr";
    const show = detail ? () => detail[1](decodeURIComponent(id)) : ADMIN_VIEWS[view][1];
    const parts = await show();
    if (turn !== state.turn) return; // gone elsewhere meanwhile
    main.replaceChildren(...parts.flat(5).filter(Boolean));
  } catch (error) {
    if (turn !== state.turn) return;
    main.replaceChildren(el("h1", {}, t("title")), error.status === 401
      ? el("p", {}, el("a", { href: "/auth" }, t("sign_in")))
      : el("p.said.bad", { role: "alert" }, t("failed"), " ", note(error.message)));
  }
  main.removeAttribute("aria-busy");
  const title = main.querySelector("h1");
  document.title = title ? title.textContent : t("title");
  if (event) {
    scrollTo(0, 0);
    main.focus();
    say(document.title);
  }
}

function start() {
  languages = JSON.parse(document.getElementById("languages").textContent);
  tag = chooseLanguage();
  document.documentElement.lang = tag;
  document.documentElement.dir = languages.rtl.includes(tag) ? "rtl" : "ltr";
  document.getElementById("back").textContent = t("back");
  addEventListener("hashchange", route);
  addEventListener("beforeunload", (event) => state.draft !== null && event.preventDefault());
  return route();
}

followTheme();
addEventListener("storage", followTheme);
addEventListener("DOMContentLoaded", start);
