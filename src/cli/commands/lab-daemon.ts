import { runDaemon } from '../../lab/daemon.ts';

/** The process behind a lab; `weft up` starts it. */
export async function labDaemon(name: string): Promise<void> {
  await runDaemon(name);
}
