/** A benchmark's result as a table: on the screen, and as a section of docs/benchmarks.md that a later run replaces. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

export interface Section {
  /** e.g. `cni`; also the name in `weft bench <name>`. */
  name: string;
  title: string;
  /** What reproduces it. */
  command: string;
  /** When and on what: date, kernel, processors, versions of the peers. */
  facts: string[];
  tables: Table[];
  /** What a reader must know to judge the numbers. */
  notes: string[];
}

export interface Table {
  caption?: string;
  columns: string[];
  rows: string[][];
}

/** Enough digits to compare, none to pretend: 12345, 123, 12.3, 1.23, 0.123. A unit follows after a space, `×` directly. */
export function figure(value: number, unit = ''): string {
  if (!Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.995 ? 2 : 3;
  return `${value.toFixed(digits)}${unit === '×' ? unit : unit && ` ${unit}`}`;
}

/** `11.3×`, `0.98`: how large a number is beside a target, with a mark when it misses it. */
export function judged(value: number, target: { atLeast?: number; atMost?: number }, unit = ''): string {
  const missed =
    (target.atLeast !== undefined && !(value >= target.atLeast)) ||
    (target.atMost !== undefined && !(value <= target.atMost));
  return `${figure(value, unit)}${missed ? ' (misses)' : ''}`;
}

export function toText(section: Section): string {
  const lines = [`${section.title}`, ...section.facts.map((fact) => `  ${fact}`), ''];
  for (const { caption, columns, rows } of section.tables) {
    if (caption) lines.push(`  ${caption}`);
    const all = [columns, ...rows];
    const widths = columns.map((_, column) => Math.max(...all.map((row) => (row[column] ?? '').length)));
    for (const row of all) {
      const cells = columns.map((_, column) => {
        const cell = row[column] ?? '';
        return column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!);
      });
      lines.push(`  ${cells.join('  ')}`.trimEnd());
    }
    lines.push('');
  }
  return [...lines, ...section.notes.map((note) => `  - ${note}`), ''].join('\n');
}

export function toMarkdown(section: Section): string {
  const lines = [`## ${section.title}`, '', '```sh', section.command, '```', ''];
  lines.push(...section.facts.map((fact) => `- ${fact}`), '');
  for (const { caption, columns, rows } of section.tables) {
    if (caption) lines.push(`**${caption}**`, '');
    const line = (cells: string[]): string =>
      `| ${columns.map((_, i) => (cells[i] ?? '').replaceAll('|', '\\|')).join(' | ')} |`;
    lines.push(line(columns), `|${columns.map((_, i) => (i === 0 ? '---' : '--:')).join('|')}|`);
    lines.push(...rows.map(line), '');
  }
  lines.push(...section.notes.map((note) => `- ${note}`));
  return `${lines.join('\n').trimEnd()}\n`;
}

const HEAD = `# Benchmarks

Every table names the command that makes it and the machine it was made on; the numbers are that run's own. Contenders are
measured in turns within one run, on the same kernel, so that ratios say more than absolute numbers do. Run as root:
\`./weft bench\` measures everything, \`./weft bench cni\` one part, and \`--markdown docs/benchmarks.md\` replaces the
part's section below.
`;

/** Replace the section in the text of a page, or append it. The marks around a section are comments, which Markdown hides. */
export function replaceSection(page: string, section: Section): string {
  const begin = `<!-- bench:${section.name} -->`;
  const end = `<!-- /bench:${section.name} -->`;
  const block = `${begin}\n${toMarkdown(section)}${end}\n`;
  const from = page.indexOf(begin);
  const to = page.indexOf(end, from);
  if (from < 0 || to < 0) return `${(page || HEAD).trimEnd()}\n\n${block}`;
  return page.slice(0, from) + block + page.slice(to + end.length).replace(/^\n/, '');
}

export function writeSection(file: string, section: Section): void {
  writeFileSync(file, replaceSection(existsSync(file) ? readFileSync(file, 'utf8') : '', section));
}
