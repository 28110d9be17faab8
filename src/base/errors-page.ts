/** docs/errors.md, made from the table of codes. `node src/base/errors-page.ts > docs/errors.md` writes it. */
import { ERROR_CODES } from './error-codes.ts';

export function errorsPage(): string {
  const rows = Object.entries(ERROR_CODES).map(
    ([code, { summary, action }]) => `| \`${code}\` | ${summary} | ${action} |`,
  );
  return [
    '# Errors',
    '',
    'Every failure that Weft reports has a stable code. This page is generated from `src/base/error-codes.ts`.',
    '',
    '| code | what it means | what to do |',
    '|---|---|---|',
    ...rows,
    '',
  ].join('\n');
}

if (import.meta.main) process.stdout.write(errorsPage());
