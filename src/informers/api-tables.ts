import type { ApiClient } from '../api/client.ts';
import type { KubeObject } from '../api/types.ts';
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { MemoryTable } from '../state/memory-table.ts';
import type { KeyedRow, SourcedTable, TableRequest, TableSource } from '../state/table-source.ts';
import { type Reflector, startReflector } from './reflector.ts';

export interface ReflectedTable<R> extends SourcedTable<R> {
  readonly reflector: Reflector;
}

export interface ApiTables extends TableSource {
  open<T extends KubeObject, R extends KeyedRow>(request: TableRequest<T, R>): ReflectedTable<R>;
}

/** Tables filled by list and watch: one reflector each. */
export function apiTables(options: {
  client: ApiClient;
  clock: Clock;
  logger: Logger;
  /** Default: see ReflectorOptions. */
  backoff?: { min: number; max: number };
  /** The server answers again after a failure of one of the tables. */
  onReconnect?: () => void;
}): ApiTables {
  return {
    open<T extends KubeObject, R extends KeyedRow>(request: TableRequest<T, R>): ReflectedTable<R> {
      const table = new MemoryTable<R>(request.resource.plural, (row) => row.key);
      const reflector = startReflector({ ...options, ...request, table });
      return {
        table,
        reflector,
        synced: reflector.synced,
        get connected() {
          return reflector.connected;
        },
        close: () => reflector.close(),
      };
    },
  };
}
