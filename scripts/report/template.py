"""The HTML page of a report: its template, with all of its style in it."""

from __future__ import annotations

TEMPLATE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'">
<title>Usage report, {{ range }}</title>
<style>
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1020px; padding: 1rem; color: #1c1c1c; background: #fff;
  font: 16px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; margin: .4rem 0 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-bottom: 2px solid #1f5fa8; }
p, .note { margin: .4rem 0; }
.note { color: #555; font-size: .9rem; }
.totals { display: grid; gap: .6rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(7.8rem, 1fr)); }
.totals div { border: 1px solid #ccc; border-radius: 6px; padding: .5rem .7rem; }
.totals dt { color: #555; font-size: .85rem; }
.totals dd { margin: 0; font-size: 1.2rem; font-weight: 600; }
figure { margin: 0; max-width: 36rem; }
.wide { max-width: none; }
svg { display: block; width: 100%; height: auto; }
.scroll { overflow-x: auto; }
.wide svg { min-width: 40rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { padding: .25rem .5rem; border-bottom: 1px solid #ddd; text-align: left;
  overflow-wrap: break-word; vertical-align: top; }
th { border-bottom-color: #888; overflow-wrap: normal; }
.name { min-width: 8rem; }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.over td:first-child { border-left: 5px solid #b3261e; }
.near td:first-child { border-left: 5px solid #e0a100; }
summary { cursor: pointer; margin: .5rem 0; }
@media (max-width: 34rem) {
  .more { display: none; }
  .name { min-width: 6rem; max-width: 10rem; }
  table { font-size: .82rem; }
  th, td { padding: .25rem .3rem; }
}
@page { margin: 14mm; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll { overflow: visible; }
  .wide svg { min-width: 0; }
  .more { display: table-cell; }
  tr, figure, .totals div { break-inside: avoid; }
  h2 { break-after: avoid; }
  thead { display: table-header-group; }
}
</style>
</head>
<body>
{% macro table(rows) %}
<div class="scroll"><table>
<thead><tr>{% for name in rows.headings %}<th>{{ name }}</th>{% endfor -%}
{% for name in sum_headings %}<th class="n{{ ' more' if name in less_needed }}">{{ name }}</th>
{%- endfor %}</tr></thead>
<tbody>
{% for keys, sums in rows.lines %}<tr>{% for key in keys %}<td class="name">{{ key }}</td>
{%- endfor %}{% for value in sums -%}
<td class="n{{ ' more' if sum_headings[loop.index0] in less_needed }}">{{ value }}</td>
{%- endfor %}</tr>
{% endfor %}</tbody>
</table></div>
{% if rows.left_out %}<p class="note">{{ rows.left_out }} more rows are left out here;
<code>--format csv</code> has all of them.</p>{% endif %}
{% endmacro %}
<h1>Usage report</h1>
<p>{{ range }} ({{ zone }})</p>
<p class="note">Made at {{ made_at }} from {{ address }}. Replies still running count at their
estimate; failed ones don't count.</p>

<dl class="totals">
{% for name, value in totals %}<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>
{% endfor %}</dl>

<section id="days">
<h2>Use by day</h2>
<figure class="scroll wide">{{ days.chart }}</figure>
<details><summary>The same in numbers</summary>{{ table(days.table) }}</details>
</section>

<section id="limits">
<h2>Users near or over a limit now</h2>
{% if limits is none %}<p>Left out: {{ limits_left_out }}</p>
{% elif not limits %}<p>None.</p>
{% else %}
<div class="scroll"><table>
<thead><tr><th>Who</th><th class="more">Policy</th><th>Limit</th><th class="n">Used</th>
<th class="n more">Left</th><th class="n">%</th><th class="more">Resets</th></tr></thead>
<tbody>
{% for item in limits %}<tr class="{{ item.kind }}"><td class="name">{{ item.who }}</td>
<td class="more">{{ item.policy }}</td><td>{{ item.limit }}</td><td class="n">{{ item.used }}</td>
<td class="n more">{{ item.left }}</td><td class="n">{{ item.percent }}</td>
<td class="more">{{ item.resets }}</td></tr>
{% endfor %}</tbody>
</table></div>
<p class="note">Red: the limit is reached. Yellow: its warning is. Use that replies still running
have reserved is in it.</p>
{% endif %}
</section>

{% for section in sections %}
<section id="{{ section.id }}">
<h2>{{ section.title }}</h2>
<figure>{{ section.chart }}</figure>
{{ table(section.table) }}
</section>
{% endfor %}

<section id="rows">
<h2>{{ rows.title }}</h2>
{{ table(rows.table) }}
{% if rows.note %}<p class="note">{{ rows.note }}</p>{% endif %}
</section>
</body>
</html>
"""
