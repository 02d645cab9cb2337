<?php

/** Takes callbacks; serve it by any web server, e.g. php -S 127.0.0.1:8000 callback.php */
declare(strict_types=1);

require __DIR__ . '/../../client/php/autoload.php';

Longline\Callback::serve(getenv('LONGLINE_CALLBACK_SECRET'), function (Longline\Event $event): void {
    if ($event->subject === '') {
        throw new Longline\Reject('whose contact is this?');
    }
    file_put_contents(getenv('NOTES') ?: 'php://stderr', "$event->subject: $event->type\n", FILE_APPEND);
});
