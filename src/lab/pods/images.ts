/** The built-in images: what a container's `image` stands for in a lab, which has no image store. */
import path from 'node:path';
import { WeftError } from '../../base/errors.ts';
import { HOME } from '../paths.ts';

export interface Image {
  /** As status reports it. */
  id: string;
  entrypoint: string[];
  /** Used when the container names neither command nor args. */
  args: string[];
}

const AVAILABLE =
  'a lab has these images: agnhost (a server for looking at the network; HTTP on 8080), pause, and exec (any program of this machine, named by `command`)';

/** The last part of the name decides, whatever the registry and the tag. @throws WEFT_IMAGE_UNKNOWN */
export function resolveImage(image: string | undefined, command: readonly string[] | undefined): Image {
  const name = /([^/:@]+)(?::[^/@]*)?(?:@.*)?$/.exec(image ?? '')?.[1];
  switch (name) {
    case 'agnhost':
      return { id: 'weft.dev/agnhost', entrypoint: [process.execPath, AGNHOST], args: [] };
    case 'pause':
      return { id: 'weft.dev/pause', entrypoint: ['/usr/bin/sleep', 'infinity'], args: [] };
    case 'exec':
      if (!command?.length) {
        throw new WeftError(
          'WEFT_IMAGE_UNKNOWN',
          'the image exec has no program of its own: `command` must name one',
        );
      }
      return { id: 'weft.dev/exec', entrypoint: [], args: [] };
    default:
      throw new WeftError(
        'WEFT_IMAGE_UNKNOWN',
        `image ${JSON.stringify(image ?? '')} cannot be pulled: ${AVAILABLE}`,
      );
  }
}

const AGNHOST = path.join(HOME, 'src/lab/agnhost/server.ts');
