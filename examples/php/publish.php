<?php

/** Publishes one event: php publish.php CHANNEL TYPE SUBJECT [JSON] */
declare(strict_types=1);

require __DIR__ . '/../../client/php/autoload.php';

[, $channel, $type, $subject] = $argv;
$client = new Longline\Client(getenv('LONGLINE_URL'), getenv('LONGLINE_TOKEN'));
$published = $client->publish($channel, ['type' => $type, 'subject' => $subject, 'data' => json_decode($argv[4] ?? 'null')]);
echo $published['cursor'], "\n";
