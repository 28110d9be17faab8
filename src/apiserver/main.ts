/** `weft apiserver`: runs until SIGTERM or SIGINT. */
import { join } from 'node:path';
import { createLogger, type Logger } from '../base/log.ts';
import { issueClient, writeKubeconfig } from './pki.ts';
import { type ApiServer, type ApiServerOptions, startApiServer } from './server.ts';

export interface ApiServerMainOptions extends Omit<ApiServerOptions, 'logger'> {
  logger?: Logger;
  /** Where the administrator's kubeconfig goes. Default DATADIR/admin.kubeconfig. */
  kubeconfig?: string;
  /** Told once the server answers. */
  onReady?: (server: ApiServer) => void;
}

/** The user of the kubeconfig written at start. */
export const ADMIN = { user: 'kubernetes-admin', groups: ['system:masters'] };

/** Resolves when the server has closed. */
export async function run(options: ApiServerMainOptions): Promise<void> {
  const logger = options.logger ?? createLogger('apiserver');
  const server = await startApiServer({ ...options, logger });
  const path = options.kubeconfig ?? join(options.dataDir, 'admin.kubeconfig');
  const admin = await issueClient(server.pkiDir, ADMIN);
  writeKubeconfig(path, { server: server.url, ca: server.ca, ...admin });
  logger.info({ url: server.url, kubeconfig: path }, 'API server ready');
  options.onReady?.(server);
  await new Promise<void>((resolve) => {
    const stop = (): void => resolve();
    process.once('SIGTERM', stop);
    process.once('SIGINT', stop);
  });
  await server.close();
}
