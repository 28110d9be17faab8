import assert from 'node:assert/strict';
import { test } from 'node:test';
import { figure, judged, replaceSection, type Section, toText } from './report.ts';

const section = (name: string, value: string): Section => ({
  name,
  title: `The ${name}`,
  command: `./weft bench ${name}`,
  facts: ['a day'],
  tables: [{ columns: ['who', 'ms'], rows: [['weft', value]] }],
  notes: ['a note'],
});

test('figures have three significant digits', () => {
  assert.deepEqual(
    [12345.6, 123.4, 12.34, 1.234, 0.1234, Number.NaN].map((value) => figure(value)),
    ['12346', '123', '12.3', '1.23', '0.123', '–'],
  );
  assert.equal(figure(2, 'ms'), '2.00 ms');
});

test('what misses its target says so', () => {
  assert.equal(judged(11, { atLeast: 10 }, '×'), '11.0×');
  assert.equal(judged(9, { atLeast: 10 }, '×'), '9.00× (misses)');
  assert.equal(judged(2.5, { atMost: 2 }), '2.50 (misses)');
  assert.equal(judged(Number.NaN, { atLeast: 1 }), '– (misses)');
});

test('a section replaces itself and leaves the others', () => {
  let page = replaceSection('', section('cni', '1'));
  page = replaceSection(page, section('path', '2'));
  const before = page;
  page = replaceSection(page, section('cni', '3'));
  assert.match(page, /^# Benchmarks\n/);
  assert.match(page, /\| weft \| 3 \|/);
  assert.doesNotMatch(page, /\| weft \| 1 \|/);
  assert.equal(replaceSection(page, section('cni', '1')), before, 'replacing is stable');
  assert.ok(page.indexOf('bench:cni') < page.indexOf('bench:path'), 'and keeps the order');
});

test('columns line up on the screen', () => {
  const lines = toText(section('cni', '12.5')).split('\n');
  assert.ok(lines.includes('  who     ms') && lines.includes('  weft  12.5'), lines.join('\n'));
});
