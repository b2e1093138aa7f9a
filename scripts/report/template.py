"""The HTML page of a report: its template; its style is the usage page's and little more."""

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
{{ css }}
svg { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; }
.wide svg { min-width: 40rem; }
.chart { max-width: 36rem; }
@page { margin: 14mm; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  .wide { overflow: visible; }
  .wide svg { min-width: 0; }
  .totals div { break-inside: avoid; }
  h2 { break-after: avoid; }
  thead { display: table-header-group; }
}
</style>
</head>
<body>
{% macro table(rows) %}
<table class="plain">
<thead><tr>{% for name in rows.headings %}<th scope="col">{{ name }}</th>{% endfor -%}
{% for name in sum_headings %}<th scope="col" class="n">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for keys, sums in rows.lines %}<tr>{% for key in keys -%}
<td data-column="{{ rows.headings[loop.index0] }}">{{ key }}</td>
{%- endfor %}{% for value in sums -%}
<td class="n" data-column="{{ sum_headings[loop.index0] }}">{{ value }}</td>
{%- endfor %}</tr>
{% endfor %}</tbody>
</table>
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
<figure class="wide" tabindex="0" aria-label="Use by day">{{ days.chart }}</figure>
<details><summary>The same in numbers</summary>{{ table(days.table) }}</details>
</section>

<section id="limits">
<h2>Users near or over a limit now</h2>
{% if limits is none %}<p>Left out: {{ limits_left_out }}</p>
{% elif not limits %}<p>None.</p>
{% else %}
<table class="plain">
<thead><tr>{% for name, key, kind in limit_columns -%}
<th scope="col" class="{{ kind }}">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for item in limits %}<tr class="{{ item.kind }}">
{% for name, key, kind in limit_columns %}
<td class="{{ kind }}" data-column="{{ name }}">{{ item[key] }}</td>
{% endfor %}</tr>
{% endfor %}</tbody>
</table>
<p class="note">Red: the limit is reached. Yellow: its warning is. Use that replies still running
have reserved is in it.</p>
{% endif %}
</section>

{% for section in sections %}
<section id="{{ section.id }}">
<h2>{{ section.title }}</h2>
<figure class="chart">{{ section.chart }}</figure>
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
