/** Structured logs: one JSON object per line on stderr (pino), or silence in tests unless WEFT_LOG_LEVEL says otherwise. */
import { type Logger, pino } from 'pino';

export type { Logger } from 'pino';

export function createLogger(component: string, level = process.env.WEFT_LOG_LEVEL ?? 'info'): Logger {
  return pino(
    { name: component, level, base: undefined, timestamp: pino.stdTimeFunctions.isoTime },
    pino.destination({ dest: 2, sync: true }),
  ).child({ component });
}

/** For tests and libraries that were given no logger. */
export const silentLogger: Logger = pino({ level: 'silent' });
